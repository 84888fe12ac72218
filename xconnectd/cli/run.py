"""``run``: the daemon."""

from __future__ import annotations

import argparse
import gc
import signal
import sys
from pathlib import Path

from xconnectd import events
from xconnectd.cli.exit_codes import Exit
from xconnectd.cli.output import explain, print_message
from xconnectd.config.identity import Identity
from xconnectd.config.source import Files
from xconnectd.daemon import systemd
from xconnectd.daemon.daemon import Daemon, OnExit
from xconnectd.daemon.signals import SIGNALS
from xconnectd.daemon.systemd import Watchdog
from xconnectd.errors import BusyError, ConfigError, DataplaneError, PrivilegeError
from xconnectd.netlink.own_addresses import own_addresses
from xconnectd.runtime import Engine


def run(options: argparse.Namespace) -> int:
    gc.disable()  # until the daemon is ready: a start makes no garbage, but takes a tenth longer
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # Python's may be lost in a late import
    publisher = events.Publisher()
    journal = systemd.is_journal(sys.stderr)
    form, level = options.log_format, options.log_level
    logger = events.setup(form, level, publisher=publisher, journal=journal)
    if options.strict:
        _demand_good(options.config)
    signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)  # a start is finished, then undone
    try:
        engine = Engine.take(logger, Watchdog())
    except (BusyError, DataplaneError, PrivilegeError, OSError) as error:
        print_message(f"cannot start: {explain(error)}")
        return Exit.NOT_STARTED
    with engine:
        try:
            on_exit = OnExit(options.on_exit)
            daemon = Daemon.of_process(options.config, engine, logger, publisher, on_exit=on_exit)
        except OSError as error:
            if not engine.ledger.is_needed():  # a start that fails leaves nothing behind
                engine.remove()
            print_message(f"cannot start: {error}")
            return Exit.NOT_STARTED
        daemon.run()
        return Exit.DONE if daemon.stop() else Exit.FAILED


def _demand_good(path: Path) -> None:
    problems = Files(path, identity=Identity(own_addresses)).read().problems
    if problems:
        raise ConfigError(problems)
