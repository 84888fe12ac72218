"""The examples for containers: good wirings that fit the image and its privileges."""

from __future__ import annotations

import json
import re
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import kubernetes_validate
import pytest
import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from xconnectd.cli.main import main
from xconnectd.config import hosts, identity, parser, reader
from xconnectd.model import Wiring

REPO: Final = Path(__file__).parents[2]
EXAMPLES: Final = REPO / "config" / "examples"
DOCKERFILE: Final = (REPO / "Dockerfile").read_text()
KUBERNETES: Final = ("kubernetes.yaml", "kubernetes-multus.yaml", "kubernetes-hosts.yaml")
DIRECTORIES: Final = ("containerlab", "compose")

CAPABILITIES: Final = ["BPF", "NET_ADMIN", "NET_BROADCAST"]
OF_HOSTS: Final = {"kubernetes-hosts.yaml": ["NET_RAW"]}
"""What it takes besides to speak to other hosts."""
CONFIG, PINS, RECORDS = "/etc/xconnectd", "/bpf", "/run/xconnectd"


def load(name: str) -> list[Any]:
    return list(yaml.safe_load_all((EXAMPLES / name).read_text()))


def manifests(name: str) -> tuple[dict[str, Any], dict[str, Any]]:
    """The ConfigMap and the DaemonSet of a file."""
    documents = load(name)
    assert [each["kind"] for each in documents] == ["Namespace", "ConfigMap", "DaemonSet"]
    _, config_map, daemon_set = documents
    return config_map, daemon_set


def wirings() -> Iterator[tuple[str, str, str]]:
    """Every wiring that the examples bring: of which, what it is called, and its text."""
    for directory in DIRECTORIES:
        for path in sorted((EXAMPLES / directory).glob("*.yaml")):
            yield directory, path.name, path.read_text()
    for name in KUBERNETES:
        for key, text in manifests(name)[0]["data"].items():
            yield name, key, text


@pytest.mark.parametrize(("example", "name", "text"), list(wirings()))
def test_every_wiring_passes_check(
    example: str, name: str, text: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert name.endswith(".yaml"), f"a directory of files would leave {name} of {example} out"
    (tmp_path / name).write_text(text)
    assert main(["check", str(tmp_path)]) == 0, capsys.readouterr().out
    wiring = parser.parse(text, name)
    assert wiring.links
    assert wiring.warnings == ()
    assert "allow_addressed" in text


def ends(wiring: Wiring) -> set[str]:
    return {end.name for link in wiring.links for end in link.ends}


def instruction(name: str) -> str:
    (found,) = re.findall(rf"^ *{name} (.*)$", DOCKERFILE.replace("\\\n", " "), re.MULTILINE)
    return str(found)


def test_the_image_expects_what_the_examples_mount() -> None:
    """And holds nothing of a machine."""
    assert json.loads(instruction("CMD")) == ["run", "-c", CONFIG]
    assert instruction("VOLUME") == RECORDS
    assert f"XCONNECTD_PINS={PINS}/" in instruction("ENV")
    assert set(re.findall(r"mkdir\b(.*)", DOCKERFILE)[0].split()) >= {CONFIG, PINS, RECORDS}
    assert set(re.findall(r"^FROM (\S+)", DOCKERFILE, re.MULTILINE)) == {"${BASE}", "base"}
    ours = DOCKERFILE.replace("ca-c", "")
    assert not re.search(r"https?:|proxy|\.crt|\.pem|index-url|cert", ours)


def test_the_image_is_made_of_what_is_pinned() -> None:
    """pip demands a hash of every package; `make lock` has looked up those of each dependency."""
    assert re.fullmatch(r"BASE=\S+:\S+@sha256:[0-9a-f]{64}", instruction("ARG"))
    (locked,) = re.findall(r'locked="(.*)"', DOCKERFILE)
    assert {"--require-hashes", "--no-deps", "--only-binary"} <= set(locked.split())
    commands = re.findall(r"bin/pip ([^&]*)", DOCKERFILE.replace("\\\n", ""))
    ways = sorted(x.split()[0] for x in commands if "--no-index" not in x)
    assert ways == ["$locked", "$locked", "uninstall", "uninstall"]
    project = tomllib.loads((REPO / "pyproject.toml").read_text())
    for name, wanted in (
        ("requirements.txt", project["project"]["dependencies"]),
        ("build-requirements.txt", project["build-system"]["requires"]),
    ):
        lines = re.sub(r"\\\n| *#.*\n", "", (REPO / ".ci" / name).read_text()).splitlines()
        assert all(re.fullmatch(r"\S+==\S+ ( +--hash=sha256:[0-9a-f]{64} ?)+", x) for x in lines)
        pinned = dict(line.split()[0].split("==") for line in lines)
        for requirement in map(Requirement, wanted):
            assert requirement.specifier.contains(pinned[canonicalize_name(requirement.name)]), (
                requirement
            )


def test_docs_give_the_same_privileges_and_paths() -> None:
    page = (REPO / "docs" / "containers.md").read_text()
    command = next(x for x in re.findall(r"docker run(?:.*\\\n)*.*", page) if "--read-only" in x)
    assert re.findall(r"--cap-add[ =](\S+)", command) == CAPABILITIES
    for words in ("--cap-drop all", f":{CONFIG}", f"/sys/fs/bpf:{PINS}", RECORDS):
        assert words in command
    readme = (EXAMPLES / "README.md").read_text()
    names = {path.name for path in EXAMPLES.glob("*.yaml")}
    assert {name for name in names if f"`{name}`" in readme} == names


def test_containerlab_has_a_cable_end_for_every_end_of_a_wire() -> None:
    """And runs the panel without privileges."""
    (lab,) = load("containerlab.clab.yaml")
    topology = lab["topology"]
    plugged = [end.split(":") for link in topology["links"] for end in link["endpoints"]]
    assert {node for node, _ in plugged} == topology["nodes"].keys()
    panel = {interface for node, interface in plugged if node == "panel"}
    assert len(panel) == len(topology["links"])
    wiring = reader.load(EXAMPLES / "containerlab" / "lab.yaml")
    assert ends(wiring) <= panel
    assert not any(link.allow_addressed for link in wiring.links)
    node = topology["nodes"]["panel"]
    assert node["binds"] == [f"containerlab:{CONFIG}:ro", f"/sys/fs/bpf:{PINS}"]
    assert (node["privileged"], node["cap-add"]) == (False, CAPABILITIES)


def test_compose_runs_the_panel_with_the_least() -> None:
    """And wires what Docker has given an address."""
    (compose,) = load("compose.yaml")
    panel = compose["services"]["panel"]
    assert (panel["read_only"], panel["cap_drop"]) == (True, ["ALL"])
    assert [name.replace("${BPF:-BPF}", "BPF") for name in panel["cap_add"]] == CAPABILITIES
    assert "privileged" not in panel
    places = [f"./compose:{CONFIG}:ro", f"/sys/fs/bpf:{PINS}", f"records:{RECORDS}"]
    assert panel["volumes"] == places
    assert "records" in compose["volumes"]
    assert (EXAMPLES / panel["build"]).resolve() == REPO
    assert set(panel["networks"]) == compose["networks"].keys()
    wiring = reader.load(EXAMPLES / "compose" / "lab.yaml")
    assert ends(wiring) == {"eth0", "eth1"}
    assert all(link.allow_addressed for link in wiring.links)


def test_compose_names_containers_that_it_has_and_sees_where_they_are() -> None:
    (compose,) = load("compose-nodes.yaml")
    services = compose["services"]
    wiring = reader.load(EXAMPLES / "compose-nodes" / "lab.yaml")
    named = {end.partition(":")[0] for end in ends(wiring)}
    assert named == {x.get("container_name") for x in services.values()} - {None}
    assert all(services[name]["network_mode"] == "none" for name in named)
    panel = services["panel"]
    assert (panel["read_only"], panel["cap_drop"]) == (True, ["ALL"])
    assert panel["cap_add"] == ["SYS_ADMIN", *(x for x in CAPABILITIES if x != "BPF")]
    page = (REPO / "docs" / "containers.md").read_text()
    for place in (
        "/run/docker.sock:/run/docker.sock:ro",
        "/run/docker/netns:/run/docker/netns:ro,rslave",
    ):
        assert place in panel["volumes"]
        assert f"-v {place}" in page


@pytest.mark.parametrize("name", KUBERNETES)
def test_kubernetes_runs_it_with_the_least_and_mounts_whole_directories(name: str) -> None:
    config_map, daemon_set = manifests(name)
    template = daemon_set["spec"]["template"]
    (container,) = template["spec"]["containers"]
    context = container["securityContext"]
    capabilities = [*CAPABILITIES, *OF_HOSTS.get(name, ())]
    assert context["capabilities"] == {"drop": ["ALL"], "add": capabilities}
    assert context["readOnlyRootFilesystem"] is True
    assert context["allowPrivilegeEscalation"] is False
    assert "privileged" not in context
    probe = container["readinessProbe"]["exec"]["command"]
    assert probe == json.loads(instruction("HEALTHCHECK").partition("CMD ")[2])
    mounts = {mount["name"]: mount for mount in container["volumeMounts"]}
    volumes = {volume["name"]: volume for volume in template["spec"]["volumes"]}
    assert mounts.keys() == volumes.keys()
    assert not any("subPath" in mount for mount in mounts.values())
    assert {mount["mountPath"] for mount in mounts.values()} == {CONFIG, PINS, RECORDS}
    assert mounts["config"]["mountPath"] == CONFIG
    assert volumes["config"]["configMap"] == {"name": config_map["metadata"]["name"]}
    assert volumes["bpf"]["hostPath"]["path"] == "/sys/fs/bpf"


@pytest.mark.parametrize("name", KUBERNETES)
def test_kubernetes_would_take_it(name: str) -> None:
    """By the schemas of its API; an unknown key is a mistake, too."""
    version, documents = kubernetes_validate.latest_version(), load(name)
    for document in documents:
        kubernetes_validate.validate(document, version, strict=True)
    documents[-1]["spec"]["template"]["spec"]["hostNetworks"] = True
    with pytest.raises(kubernetes_validate.ValidationError):
        kubernetes_validate.validate(documents[-1], version, strict=True)


def test_each_node_does_its_part_of_one_file() -> None:
    config_map, daemon_set = manifests("kubernetes-hosts.yaml")
    spec = daemon_set["spec"]["template"]["spec"]
    assert spec["hostNetwork"] is True
    (container,) = spec["containers"]
    name = {"fieldRef": {"fieldPath": "spec.nodeName"}}
    assert container["env"] == [{"name": identity.VARIABLE, "valueFrom": name}]
    (text,) = config_map["data"].values()
    wiring = parser.parse(text, "lab.yaml")
    parts = [hosts.links_of(wiring, host).links for host, _ in wiring.hosts]
    assert all(parts)
    assert sum(map(len, parts)) > len(wiring.links), "some links are of two nodes"


@pytest.mark.parametrize("name", KUBERNETES)
def test_kubernetes_lets_the_pods_in_and_onto_every_node(name: str) -> None:
    namespace, *rest = load(name)
    labels = namespace["metadata"]["labels"]
    assert labels == {"pod-security.kubernetes.io/enforce": "privileged"}
    assert {each["metadata"]["namespace"] for each in rest} == {namespace["metadata"]["name"]}
    spec = rest[-1]["spec"]
    assert spec["template"]["spec"]["tolerations"] == [{"operator": "Exists"}]
    assert spec["selector"]["matchLabels"] == spec["template"]["metadata"]["labels"]


def test_multus_wires_what_it_has_given_an_address() -> None:
    config_map, daemon_set = manifests("kubernetes-multus.yaml")
    template = daemon_set["spec"]["template"]
    networks = template["metadata"]["annotations"]["k8s.v1.cni.cncf.io/networks"].split(", ")
    assert "hostNetwork" not in template["spec"]
    wiring = parser.parse(config_map["data"]["lab.yaml"], "lab.yaml")
    assert ends(wiring) == {f"net{number}" for number, _ in enumerate(networks, 1)}
    assert all(link.allow_addressed for link in wiring.links)
