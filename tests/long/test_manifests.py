"""The examples for Kubernetes, held against its own schemas, in which no key is unknown."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from netns.lab import REPO, run

EXAMPLES = REPO / "config" / "examples"
VALIDATOR = "kubernetes-validate==1.37.0"
"""It brings the schemas of every version: 108 MB, which is why it is no dependency."""


@pytest.fixture(scope="module")
def validate(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., str]:
    place = tmp_path_factory.mktemp("validator")
    run(sys.executable, "-m", "venv", str(place))
    run(f"{place}/bin/pip", "install", "--quiet", VALIDATOR)

    def validate(file: Path, version: str) -> str:
        command = (f"{place}/bin/kubernetes-validate", "--strict", "-k", version, str(file))
        done = run(*command, check=False)
        return done.stdout + done.stderr

    return validate


@pytest.mark.parametrize("version", ["1.27", "1.30", "1.34", "1.37"])
def test_kubernetes_knows_every_key(validate: Callable[..., str], version: str) -> None:
    for file in sorted(EXAMPLES.glob("kubernetes*.yaml")):
        told = validate(file, version)
        for kind in ("namespace", "configmap", "daemonset"):
            assert f"passed for resource {kind}/" in told, told


def test_a_misspelt_key_is_seen(validate: Callable[..., str], tmp_path: Path) -> None:
    bad = tmp_path / "bad.yaml"
    bad.write_text((EXAMPLES / "kubernetes.yaml").read_text().replace("hostNetwork", "hostNetwrk"))
    assert "'hostNetwrk' was unexpected" in validate(bad, "1.37")
