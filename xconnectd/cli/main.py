"""Arguments in, one call, an exit code out; what is raised on the way is told in words.

Every command is a module of this package with its name and a ``run`` (``try`` is ``trial``,
``import`` is ``topology``: both are words of Python). It is imported when it was asked for, so that
``check`` and ``schema`` run where there is neither root nor bcc nor a kernel of ours.
"""

from __future__ import annotations

import gc
import os
import signal
import sys
from collections.abc import Sequence
from importlib import import_module
from types import ModuleType
from typing import Final

from xconnectd.cli.arguments import parse
from xconnectd.cli.exit_codes import Exit
from xconnectd.cli.output import (
    discard,
    explain,
    print_everywhere,
    print_lines,
    print_message,
)
from xconnectd.errors import ConfigError, XconnectError

_ENDLESS: Final = frozenset({"capture", "events", "status"})
"""Modules of commands that go on until their reader leaves; then they are done."""


def main(arguments: Sequence[str] | None = None) -> int:
    print_everywhere()
    code: int = Exit.DONE
    try:
        try:
            options = parse(arguments)
            if getattr(options, "host", ""):
                from xconnectd.config import identity

                os.environ[identity.VARIABLE] = options.host
            if options.module not in _ENDLESS:
                code = Exit.FAILED  # cut short, it has not shown that all is well
            code = _load(options.module).run(options)
        finally:
            print(end="", flush=True)
    except BrokenPipeError:  # `| head` is no failure; Python would complain again at its own end
        discard(sys.stdout)
    except ConfigError as error:
        print_lines(*error.problems, file=sys.stderr)
        return Exit.BAD_CONFIG
    except (XconnectError, OSError) as error:
        print_message(explain(error))
        return Exit.FAILED
    except KeyboardInterrupt:
        return Exit.FAILED
    finally:
        try:
            sys.stderr.flush()
        except OSError:  # a log that cannot be written; Python would end with code 120 for it
            discard(sys.stderr)
    return code


def _load(module: str) -> ModuleType:
    """Imports the module of a command, in the way of ``__main__``: ended by SIGINT at once.

    Without collections, which find no garbage in an import and take a tenth of its time.
    """
    handler = signal.signal(signal.SIGINT, signal.SIG_DFL)
    gc.disable()
    try:
        return import_module(f"xconnectd.cli.{module}")
    finally:
        gc.freeze()
        gc.enable()
        signal.signal(signal.SIGINT, handler)
