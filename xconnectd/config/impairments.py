"""The block ``impair:`` of a link, read from nodes, or all that is wrong with it.

Also the same as ``KEY=VALUE``, as a command has it. Pure.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Final

from xconnectd import impairment
from xconnectd.config import yaml_tree
from xconnectd.config.yaml_tree import MappingNode, Refusal, Report, ScalarNode, YamlNode, said
from xconnectd.impairment import Distribution, Impairment, Impairments

Fault = Callable[[str], str]
"""What is wrong with a libpcap expression, empty for nothing; in words."""


def no_fault(_expression: str) -> str:
    """For who cannot ask libpcap."""
    return ""


DIRECTIONS: Final = ("forward", "reverse")

_Text = Callable[[str], Any]
_Entry = tuple[ScalarNode, YamlNode]


def _distribution(text: str) -> Distribution:
    try:
        return Distribution(text)
    except ValueError:
        raise ValueError(f"`{text[:40]}` is no distribution", ", ".join(Distribution)) from None


_TEXTS: Final[Mapping[str, _Text]] = {
    "delay": impairment.read_time,
    "jitter": impairment.read_time,
    "distribution": _distribution,
    "loss": impairment.read_share,
    "corrupt": impairment.read_share,
    "duplicate": impairment.read_share,
    "reorder": impairment.read_share,
    "rate": impairment.read_rate,
    "limit": impairment.read_frames,
    "seed": impairment.read_seed,
    "drop": impairment.read_filter,
}
"""What reads each key of an impairment."""

_LOSSES: Final[Mapping[str, _Text]] = {
    "mean": impairment.read_share,
    "burst": impairment.read_burst,
}

KEYS: Final = tuple(_TEXTS)
LOSS_KEYS: Final = tuple(_LOSSES)


def read(node: MappingNode, report: Report, fault: Fault = no_fault) -> Impairments:
    """What stands there; what is bad is reported and left out."""
    if not any(direction in node.entries for direction in DIRECTIONS):
        both = _one(node, report, fault)
        return Impairments(both, both)
    found = dict.fromkeys(DIRECTIONS, impairment.UNIMPAIRED)
    for name, (key, value) in node.entries.items():
        if name not in DIRECTIONS:
            hint = "say it in `forward:` and in `reverse:`, or leave these two out"
            report.problem(key, f"`{yaml_tree.short(name)}` beside a direction", hint)
        elif isinstance(value, MappingNode):
            found[name] = _one(value, report, fault)
        else:
            report.problem(value, *_no_mapping(key, value))
    return Impairments(found["forward"], found["reverse"])


def read_words(words: Iterable[str], fault: Fault = no_fault) -> Impairment:
    """``delay=20ms loss=1%``; a value is YAML, so ``loss={mean: 1%, burst: 5}`` is one too.

    Raises:
        ConfigError: with everything that is wrong with them.
    """
    report, found = Report("impair"), impairment.UNIMPAIRED
    with report.gathering():
        entries: dict[str, _Entry] = {}
        for column, word in enumerate(words):
            name, equals, text = word.partition("=")
            key = ScalarNode(name, "", 0, column)
            if not equals:
                report.problem(key, f"`{yaml_tree.short(word)}` is not KEY=VALUE", "`delay=20ms`")
            elif name in entries:
                report.problem(key, f"`{yaml_tree.short(name)}` is said twice", "say it once")
            else:
                with _reporting(report):
                    entries[name] = key, _value(key, text)
        found = _one(MappingNode(None, entries), report, fault)
    report.require_none()
    return found


def _value(key: ScalarNode, text: str) -> YamlNode:
    """A text, or the mapping that stands in braces."""
    if text.startswith("{"):
        try:
            node = yaml_tree.compose(text.encode(), Report("impair"))
        except Refusal as refusal:
            what = f"`{key.value}`: `{yaml_tree.short(text)}` {refusal}"
            raise Refusal(key, what, refusal.hint) from None
        if node:
            return node
    return ScalarNode(text, "", 0, key.column)


def _one(node: MappingNode, report: Report, fault: Fault) -> Impairment:
    values: dict[str, Any] = {}
    for name, (key, value) in node.entries.items():
        with _reporting(report):
            if name == "loss" and isinstance(value, MappingNode):
                values |= _bursts(value, report)
            else:
                values[name] = _of_text(_TEXTS, key, value)
    if problem := fault(values["drop"]) if values.get("drop") else "":
        report.problem(node.entries["drop"][1], f"`drop`: {problem}", '`"udp port 3784"`')
    found = Impairment(**values)
    name, problem, hint = impairment.contradiction(found)
    if problem:
        report.problem(node.entries[name][0], problem, hint)
    return found


def _bursts(node: MappingNode, report: Report) -> dict[str, float]:
    """The loss by Gilbert's model."""
    values = {}
    for name, (key, value) in node.entries.items():
        with _reporting(report):
            values[name] = _of_text(_LOSSES, key, value)
    for name in _LOSSES.keys() - node.entries.keys():
        report.problem(node, f"`loss` lacks `{name}`", "`loss: {mean: 1%, burst: 5}`")
    return {"loss": values.get("mean", 0.0), "burst": values.get("burst", 0.0)}


@contextmanager
def _reporting(report: Report) -> Iterator[None]:
    """A refusal ends its block, and is reported."""
    try:
        yield
    except Refusal as refusal:
        report.add(refusal)


def _of_text(known: Mapping[str, _Text], key: ScalarNode, node: YamlNode) -> Any:
    name = key.value
    if name not in known:
        from difflib import get_close_matches  # 1 ms that only a typo should cost

        close = get_close_matches(name.lower()[:40], known, n=1)
        hint = f"did you mean `{close[0]}`?" if close else f"known: {', '.join(known)}"
        raise Refusal(key, f"unknown key `{yaml_tree.short(name)}` in `impair`", hint)
    if not isinstance(node, ScalarNode):
        raise Refusal(node, f"`{name}` takes one value, not {said(node)}")
    yaml_tree.bounded(node)
    try:
        return known[name](node.value)
    except ValueError as error:
        problem, hint = error.args
        raise Refusal(node, f"`{name}`: {problem}", hint) from None


def _no_mapping(key: ScalarNode, node: YamlNode) -> tuple[str, str]:
    return f"`{key.value}` is a mapping, not {said(node)}", f"`{key.value}: {{delay: 20ms}}`"
