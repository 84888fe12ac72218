"""The borders between the modules, read from their imports.

Imports inside functions and below ``TYPE_CHECKING`` count like all others: a late import is a way
to start faster, not a way around a border.
"""

from __future__ import annotations

import ast
import graphlib
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import xconnectd

PACKAGE = Path(xconnectd.__file__).parent
MODULES = {path.stem: ast.parse(path.read_text(), path) for path in PACKAGE.rglob("*.py")}

# Foreign code has one door each: what it raises and returns is translated there and nowhere else.
SOLE_IMPORTERS = {
    "bcc": {"compiler"},
    "prometheus_client": {"metrics"},
    "pyroute2": {"drivers", "netlink"},
    "rich": {"live"},
    "watchdog": {"watch"},
    "yaml": {"config"},
}

# These stand below everything, so that everything may use them.
GROUND = ("model", "errors", "lean", "log")

# The core decides and never acts, so that its laws can be tested without a kernel.
PURE = (
    *("model", "config", "edit", "schema", "modes", "safety", "verdict", "plan", "losses", "tally"),
    *("table", "graph", "printout", "quantities", "printable", "spelling"),
    *("diagnosis", "requirements", "frames", "pcapng", "digest"),
)
OUTSIDE_WORLD = {
    "asyncio", "ctypes", "fcntl", "multiprocessing", "os", "pathlib", "select", "selectors",
    "shutil", "signal", "socket", "stat", "subprocess", "tempfile", "threading", "time",
}  # fmt: skip


def _imports(tree: ast.Module) -> Iterator[str]:
    """Dotted names of all that is imported; what is taken ``from`` a module comes with its name."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                base = f"xconnectd.{base}".rstrip(".")
            yield base
            yield from (f"{base}.{alias.name}" for alias in node.names)


def _roots(module: str) -> set[str]:
    """Top-level packages that a module imports."""
    return {name.partition(".")[0] for name in _imports(MODULES[module])}


def _siblings(module: str) -> set[str]:
    """Modules of this package that a module imports."""
    dotted = (name.split(".") for name in _imports(MODULES[module]))
    named = {parts[1] for parts in dotted if parts[0] == "xconnectd" and len(parts) > 1}
    return (named & MODULES.keys()) - {module}


def test_the_package_is_flat_and_its_modules_are_nouns() -> None:
    assert {path.parent for path in PACKAGE.rglob("*.py")} == {PACKAGE}
    assert not MODULES.keys() & {"utils", "util", "helpers", "common", "manager", "misc"}


@pytest.mark.parametrize("foreign", sorted(SOLE_IMPORTERS))
def test_foreign_code_has_one_door(foreign: str) -> None:
    importers = {module for module in MODULES if foreign in _roots(module)}
    assert importers <= SOLE_IMPORTERS[foreign]


@pytest.mark.parametrize("module", [m for m in GROUND if m in MODULES])
def test_the_ground_stands_on_nothing(module: str) -> None:
    assert _siblings(module) <= {"lean"}


@pytest.mark.parametrize("module", [m for m in PURE if m in MODULES])
def test_the_core_does_no_io(module: str) -> None:
    assert not _roots(module) & OUTSIDE_WORLD


@pytest.mark.parametrize("module", [m for m in PURE if m in MODULES])
def test_the_core_imports_only_the_core(module: str) -> None:
    assert _siblings(module) <= {*PURE, "errors"}


def test_no_import_cycles() -> None:
    graph = graphlib.TopologicalSorter({module: _siblings(module) for module in MODULES})
    graph.prepare()  # raises CycleError, which names the cycle


def test_the_package_itself_holds_only_its_version() -> None:
    assert _siblings("__init__") == set()


def test_only_the_command_line_is_imported_by_nobody_and_imports_anything() -> None:
    users = {module for module in MODULES if "cli" in _siblings(module)}
    assert users <= {"__main__"}


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


@pytest.mark.parametrize("module", sorted(MODULES.keys() - {"cli", "__main__"}))
def test_nothing_below_the_command_line_exits(module: str) -> None:
    assert list(_exits(MODULES[module])) == []


@pytest.mark.parametrize("module", sorted(MODULES))
def test_every_module_says_what_it_owns(module: str) -> None:
    assert ast.get_docstring(MODULES[module])


@pytest.mark.parametrize("module", sorted(MODULES))
def test_every_import_is_a_dependency(module: str) -> None:
    """What happens to lie in the virtual environment is no dependency."""
    known = {"xconnectd", "structlog", "__future__", *SOLE_IMPORTERS, *sys.stdlib_module_names}
    assert _roots(module) <= known


def test_check_needs_neither_bcc_nor_pyroute2_nor_watchdog(tmp_path: Path) -> None:
    """It has to run on a laptop, in an editor, in a commit hook."""
    file = tmp_path / "xconnect.yaml"
    file.write_text("links: {a: b}\n")
    # None in sys.modules makes an import fail.
    program = (
        "import sys; sys.modules.update(dict.fromkeys(('bcc', 'pyroute2', 'watchdog')));"
        "from xconnectd.cli import main; sys.exit(main(['check', sys.argv[1]]))"
    )
    done = subprocess.run((sys.executable, "-c", program, file), capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")


def test_the_daemon_starts_without_what_it_never_uses() -> None:
    """Each of these costs a start 3 to 100 ms and some megabytes."""
    code = "import sys, xconnectd.daemon as _; print(*sys.modules)"
    loaded = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    ).stdout.split()
    assert "structlog" in loaded
    unused = {
        *("asyncio", "ssl", "bcc", "pyroute2", "rich", "prometheus_client"),
        *("_hashlib", "multiprocessing"),
    }
    assert not {*unused, "pyroute2.netlink.rtnl.tcmsg"} & set(loaded)


@pytest.mark.parametrize("command", ["check", "run", "schema"])
def test_the_command_line_alone_loads_nothing_of_a_feature(command: str) -> None:
    """Each command brings along what it needs; to ask for its help needs nothing."""
    code = (
        "import contextlib, sys; from xconnectd.cli import main\n"
        "with contextlib.suppress(SystemExit): main([sys.argv[1], '--help'])\n"
        "print(*sys.modules)"
    )
    loaded = subprocess.run(
        [sys.executable, "-c", code, command], capture_output=True, text=True, check=True
    ).stdout.split()
    features = {"overview", "printout", "table", "graph", "doctor", "probe", "wiretap", "engine"}
    assert not {f"xconnectd.{name}" for name in features} & set(loaded)
    assert not {"asyncio", "importlib.metadata", "pyroute2", "rich", "structlog"} & set(loaded)
