"""The borders between the packages and their modules, read from their imports.

Imports inside functions and below ``TYPE_CHECKING`` count like all others: a late import is a way
to start faster, not a way around a border. Every law names its subjects: one that is renamed or
goes makes its law fail, and the table of packages is equal to what the imports say, not a bound.
"""

from __future__ import annotations

import ast
import graphlib
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import xconnectd
from xconnectd.cli.arguments import COMMANDS

PACKAGE = Path(xconnectd.__file__).parent
REPO = PACKAGE.parent


def _dotted(path: Path) -> str:
    parts = path.relative_to(PACKAGE).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" and len(parts) > 1 else parts)


MODULES = {_dotted(path): ast.parse(path.read_text(), path) for path in PACKAGE.rglob("*.py")}

# The single modules at the top that are no part of "root".
TOP = {"__init__", "__main__", "api", "runtime"}

# Every package and what it imports; `root` stands for the modules at the top for everybody's use.
IMPORTS: dict[str, set[str]] = {
    "root": set(),
    "config": {"root"},
    "netlink": {"root"},
    "dataplane": {"root"},
    "qemu": {"root"},
    "nodes": {"root"},
    "tunnels": {"root"},
    "state": {"root"},
    "reconcile": {"root"},
    "control": {"root", "config"},
    "runtime": {
        *("root", "netlink", "dataplane", "nodes", "tunnels", "state", "reconcile", "control"),
    },
    "status": {"root", "config", "netlink", "dataplane", "reconcile", "control", "runtime"},
    "diagnostics": {
        *("root", "config", "netlink", "dataplane", "reconcile"),
        *("control", "runtime", "status", "nodes"),
    },
    "capture": {"root", "netlink", "dataplane", "tunnels", "runtime", "status"},
    "daemon": {"root", "config", "netlink", "qemu", "reconcile", "control", "status"},
    "cli": {
        *("root", "config", "netlink", "reconcile", "control", "runtime", "status"),
        *("diagnostics", "capture", "daemon", "nodes"),
    },
    "api": {"root", "config", "reconcile", "runtime"},
    "__main__": {"cli"},
    "__init__": set(),
}

# Foreign code has one door each: what it raises and returns is translated there and nowhere else.
SOLE_IMPORTERS = {
    "bcc": {"dataplane.compiler"},
    "prometheus_client": {"daemon.metrics"},
    "pyroute2": {"netlink.ethtool", "netlink.transport"},
    "qemu": {"qemu.qmp_session"},
    "rich": {"status.tui"},
    "ruamel": {"config.link_edit"},
    "watchdog": {"config.watcher"},
    "yaml": {"config.yaml_tree"},
}

# The core decides and never acts, so that its laws can be tested without a kernel.
PURE = {
    *("model", "formatting", "digest", "monitor_address", "remedies", "spelling"),
    *("impairment", "shape", "config.impairments", "reconcile.impairments"),
    *("config.keys", "config.parser", "config.yaml_tree", "config.edit", "config.json_schema"),
    *("config.link_edit", "config.containerlab", "config.ends", "config.hosts"),
    *("reconcile.admission", "reconcile.carrier", "reconcile.evaluate"),
    "reconcile.found_links",
    *("reconcile.made_veths", "reconcile.made_tunnels", "reconcile.mode_selection"),
    "reconcile.plan",
    *("reconcile.actions", "reconcile.link_state", "reconcile.pass_stats"),
    "reconcile.link_changes",
    *("status.document", "status.drop_reasons"),
    *("status.text", "status.table", "status.graph"),
    *("diagnostics.facts", "diagnostics.finding", "diagnostics.config_checks"),
    *("diagnostics.link_checks", "diagnostics.host_checks", "diagnostics.tunnel_checks"),
    *("diagnostics.test_frames", "diagnostics.test_result", "diagnostics.test_outcome"),
    "capture.pcapng",
    *("tunnels.keepalive", "tunnels.liveness", "tunnels.peers"),
    "qemu.outcome",
    "nodes.containers",
}
OUTSIDE_WORLD = {
    "asyncio", "ctypes", "fcntl", "multiprocessing", "os", "pathlib", "select", "selectors",
    "shutil", "signal", "socket", "stat", "subprocess", "tempfile", "threading", "time",
}  # fmt: skip


def _imports(module: str) -> Iterator[str]:
    """Dotted names of all that a module imports; what is taken ``from`` one comes with its name."""
    for node in ast.walk(MODULES[module]):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert not node.level, f"{module}: a relative import"
            yield node.module or ""
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def _roots(module: str) -> set[str]:
    """Top-level packages that a module imports."""
    return {name.partition(".")[0] for name in _imports(module)}


def _siblings(module: str) -> set[str]:
    """Modules of this package that a module imports."""
    named = {name.removeprefix("xconnectd.") for name in _imports(module)}
    return (named & MODULES.keys()) - {module} - _packages()


def _packages() -> set[str]:
    return {name.partition(".")[0] for name in MODULES if "." in name}


def _room(module: str) -> str:
    package, dot, _ = module.partition(".")
    return package if dot or module in TOP or module in _packages() else "root"


def _arrows() -> dict[str, set[str]]:
    found: dict[str, set[str]] = {_room(module): set() for module in MODULES}
    for module in MODULES:
        found[_room(module)] |= {_room(sibling) for sibling in _siblings(module)} - {_room(module)}
    return found


def test_the_packages_import_what_the_table_says() -> None:
    assert _arrows() == IMPORTS


def test_modules_are_nouns_and_packages_hold_only_their_docstring() -> None:
    last = {name.rpartition(".")[2] for name in MODULES}
    assert not last & {"utils", "util", "helpers", "common", "manager", "misc"}
    for package in _packages():
        assert [type(node) for node in MODULES[package].body] == [ast.Expr], package
    assert _siblings("__init__") == set()


def test_no_import_cycles() -> None:
    for graph in (_arrows(), {module: _siblings(module) for module in MODULES}):
        graphlib.TopologicalSorter(graph).prepare()  # raises CycleError, which names the cycle


def test_foreign_code_has_one_door() -> None:
    roots = {module: _roots(module) for module in MODULES}
    doors = {code: {each for each in MODULES if code in roots[each]} for code in SOLE_IMPORTERS}
    assert doors == SOLE_IMPORTERS


@pytest.mark.parametrize("module", sorted(PURE))
def test_the_core_does_no_io_and_imports_only_the_core(module: str) -> None:
    assert _roots(module) & OUTSIDE_WORLD == set()
    assert _siblings(module) - PURE - {"errors"} == set()


def _is_main_guard(node: ast.AST) -> bool:
    return isinstance(node, ast.If) and ast.unparse(node.test) == "__name__ == '__main__'"


def _exits(tree: ast.Module) -> Iterator[int]:
    """Lines that end the process in the way of a command; below a main guard they may."""
    library = ast.Module([node for node in tree.body if not _is_main_guard(node)], [])
    for node in ast.walk(library):
        match node:
            case ast.Attribute(value=ast.Name(id="sys"), attr="exit"):
                yield node.lineno
            case ast.Name(id="SystemExit" | "exit" | "quit"):
                yield node.lineno


@pytest.mark.parametrize("module", sorted(MODULES))
def test_every_module(module: str) -> None:
    assert ast.get_docstring(MODULES[module]), "it says what it owns"
    if _room(module) not in ("cli", "__main__"):
        assert list(_exits(MODULES[module])) == [], "nothing below the command line exits"
    # What happens to lie in the virtual environment is no dependency.
    known = {"xconnectd", "structlog", "__future__", *SOLE_IMPORTERS, *sys.stdlib_module_names}
    assert _roots(module) - known == set()


def test_the_page_names_every_module() -> None:
    """A newcomer looks there first for what is where; of ``cli`` a command names its own."""
    page = (REPO / "docs" / "architecture.md").read_text()
    rows = dict(re.findall(r"^\| (?:`(\w+)/?`|top) \| (.*) \|$", page, re.MULTILINE))
    for package in _packages() | {""}:
        here = {name for name in MODULES if name.rpartition(".")[0] == package} - _packages()
        modules = {name.rpartition(".")[2] for name in here} - {"__init__", "__main__", "runtime"}
        if package == "cli":
            modules -= COMMANDS.keys()
        assert modules - set(re.findall(r"`(\w+)`", rows[package])) == set(), package or "top"


def test_the_page_shows_the_packages_as_they_are() -> None:
    """docs/architecture.md has the table of imports as a Mermaid graph."""
    page = (REPO / "docs" / "architecture.md").read_text()
    graph = page.partition("```mermaid\n")[2].partition("```")[0]
    drawn = set(re.findall(r"^ *(\w+) --> (\w+)$", graph, re.MULTILINE))
    hidden = {"root", "__init__", "__main__"}
    assert drawn == {
        (one, other)
        for one, others in IMPORTS.items()
        for other in others
        if not {one, other} & hidden
    }


@pytest.mark.parametrize("command", ["check", "schema", "import"])
def test_what_reads_no_kernel_needs_neither_bcc_nor_pyroute2(command: str, tmp_path: Path) -> None:
    """It has to run on a laptop, in an editor, in a commit hook."""
    file = tmp_path / "xconnect.yaml"
    file.write_text("links: {a: b}\n")
    # None in sys.modules makes an import fail.
    program = (
        "import sys; sys.modules.update(dict.fromkeys(('bcc', 'pyroute2', 'watchdog')));"
        "from xconnectd.cli.main import main; sys.exit(main(sys.argv[1:]))"
    )
    topology = tmp_path / "lab.clab.yml"
    topology.write_text("{name: l, topology: {nodes: {a: , b: }, links: [endpoints: [a:b, b:a]]}}")
    line = {"check": [command, file], "schema": [command], "import": [command, topology]}[command]
    done = subprocess.run((sys.executable, "-c", program, *line), capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")


def _loaded(code: str, *words: str) -> set[str]:
    """What a fresh process has imported when it has done that, or has ended itself."""
    program = f"import contextlib, sys\nwith contextlib.suppress(SystemExit): {code}"
    command = [sys.executable, "-c", f"{program}\nprint(*sys.modules)", *words]
    return set(subprocess.run(command, capture_output=True, text=True, check=True).stdout.split())


def test_the_daemon_starts_without_what_it_never_uses() -> None:
    """Each of these costs a start 1 to 100 ms, some of them megabytes."""
    loaded = _loaded("import xconnectd.daemon.daemon as _")
    assert "structlog" in loaded
    unused = {"asyncio", "ssl", "bcc", "pyroute2", "rich", "prometheus_client", "_hashlib"}
    rarely_used = {"concurrent.futures", "difflib", "shutil", "subprocess"}
    of_others = {"multiprocessing", "pyroute2.netlink.rtnl.tcmsg", "watchdog.observers.inotify"}
    assert not {*unused, *rarely_used, *of_others} & loaded


@pytest.mark.parametrize("command", ["check", "run", "schema"])
def test_the_command_line_alone_loads_nothing_of_a_feature(command: str) -> None:
    """Each command brings along what it needs; to ask for its help needs nothing."""
    loaded = _loaded("from xconnectd.cli.main import main; main(sys.argv[1:])", command, "--help")
    features = (
        *("model", "config", "control.client", "status.reports", "status.text", "status.table"),
        *("diagnostics", "capture", "runtime"),
    )
    assert MODULES.keys() >= {*features}
    assert not {f"xconnectd.{name}" for name in features} & loaded
    assert not {"asyncio", "importlib.metadata", "pyroute2", "rich", "structlog"} & loaded
