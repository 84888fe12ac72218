"""The alert rules, tried by Prometheus' own tool."""

from __future__ import annotations

from netns.lab import REPO, run

RULES = REPO / "config" / "prometheus"


def test_promtool_takes_and_tries_the_rules() -> None:
    rules = (RULES / "xconnectd.rules.yml").read_text().count("- alert: ")
    told = run("promtool", "check", "rules", "xconnectd.rules.yml", cwd=RULES).stdout
    assert f"SUCCESS: {rules} rules found" in told
    assert "SUCCESS" in run("promtool", "test", "rules", "xconnectd.test.yml", cwd=RULES).stdout
