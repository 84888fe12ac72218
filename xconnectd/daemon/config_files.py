"""The config files as the daemon takes them: when they are read, and what is told of them."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from xconnectd.config.source import FileState, Reading
from xconnectd.daemon.clock import Clock, Timer
from xconnectd.daemon.ports import MakeWatch, Runtime, Source
from xconnectd.errors import is_full
from xconnectd.events import Event, Logger
from xconnectd.model import Scope


class ConfigFiles:
    """Reads the files when they have changed, and has the reconciler want what they say.

    Attributes:
        source: what is read.
        changed: expires when a change is to be read.
        reading: what was last read.
        last_reload: when something new was last wanted (seconds since the epoch), None: never.
        last_load: when all files were last loaded and said something new, likewise.
    """

    def __init__(
        self,
        source: Source,
        watch: MakeWatch,
        runtime: Runtime,
        log: Logger,
        *,
        clock: Clock,
        wake: Callable[[], None],
    ) -> None:
        """``wake`` is called in any thread when a file has changed."""
        self.source = source
        self._reconciler = runtime.reconciler
        self._ledger = runtime.ledger
        self._log = log
        self._clock = clock
        self._wake = wake
        self.changed = Timer(clock)
        self._watch = watch(self._file_changed)
        self.reading = Reading(self._reconciler.wiring, ())
        self.last_reload: float | None = None
        self.last_load: float | None = None
        self._host = ""
        self._orphan = ""
        self._unwatched = ""

    def start(self) -> None:
        """Watches, and reads for the first time; without good files, the wires found are wanted."""
        self._watch.start()
        self._take(self.source.read_first(self._reconciler.found), again=True)

    def stop(self) -> None:
        self._watch.stop()
        self.source.close()

    def _file_changed(self, settle: float) -> None:
        """Called by the watcher's thread."""
        self.changed.set_in(settle)
        self._wake()

    # ------------------------------------------------------------------ reading

    def read_if_due(self) -> Scope:
        """What a pass must look at after a change that is due; nothing without one."""
        return self._take(self.source.read()) if self.changed.expired() else Scope()

    def read_again(self) -> Scope:
        """As if all were new: every file that is refused is told again."""
        return self._take(self.source.read(), again=True)

    def _take(self, reading: Reading, *, again: bool = False) -> Scope:
        """Wants what the files say, and tells of what is new in them."""
        before, self.reading = self.reading, reading
        known = {file.path: file for file in before.files}
        for file in reading.files:
            was = known.get(file.path)
            if file.problems and (again or was is None or was.problems != file.problems):
                self._tell_refused(file)
        wiring, wanted = reading.wiring, self._reconciler.wiring
        if wiring.host != self._host:
            self._note_host(wiring.host)
        if (wiring.text, wiring) == (wanted.text, wanted) and not again:
            if before.state != "loaded" and reading.state == "loaded":
                self._tell_loaded(reading)
            return Scope()
        tell = partial(self._tell_loaded, reading)
        scope = self._reconciler.want(wiring, tell)
        self.last_reload = self._clock.time()
        if not scope and reading.state == "loaded":  # perhaps no pass follows
            tell()
        return scope

    def _note_host(self, host: str) -> None:
        """For commands, which are not told which host this is."""
        self._host = host
        try:
            self._ledger.set_host(host)
        except OSError as error:
            if not is_full(error):
                raise

    def _tell_refused(self, file: FileState) -> None:
        self._log.error(
            Event.CONFIG_UNREACHABLE if file.unreachable else Event.CONFIG_REJECTED,
            path=str(file.path),
            problems=[str(problem) for problem in file.problems],
            reason="its last good links stay",
        )

    def _tell_loaded(self, reading: Reading) -> None:
        self.last_load = self._clock.time()
        self._log.info(
            Event.CONFIG_LOADED,
            path=str(self.source.path),
            config_hash=reading.wiring.hash,
            links=len(reading.wiring.links),
            **({"host": reading.wiring.host} if reading.wiring.host else {}),
        )
        for warning in reading.wiring.warnings:
            self._log.warning(Event.CONFIG_WARNING, config_hash=reading.wiring.hash, reason=warning)

    # ------------------------------------------------------------------ watching

    def check(self) -> None:
        """Once a second: finds what inotify does not tell, and tells what is wrong with the watch.

        Which host this is may be told by an address that comes after the start.
        """
        self._watch.check()
        if any(file.host_unknown for file in self.reading.files):
            self.changed.set_in(0.0)
        self._tell_if_orphaned()
        self._tell_if_unwatched()

    def _tell_if_orphaned(self) -> None:
        orphan = self._watch.orphan
        if orphan and orphan != self._orphan:
            self._log.error(
                Event.CONFIG_UNREACHABLE,
                path=orphan,
                reason="the file was replaced behind a bind mount of the single file; what is"
                " written outside will never be seen here: mount its directory instead",
            )
        self._orphan = orphan

    def _tell_if_unwatched(self) -> None:
        problem = self._watch.problem
        if problem and problem != self._unwatched:
            self._log.warning(
                Event.CONFIG_UNWATCHED,
                path=str(self.source.path),
                reason=f"{problem}; until then the file is checked every two seconds",
            )
        elif self._unwatched and not problem:
            self._log.info(Event.CONFIG_WATCHED, path=str(self.source.path))
        self._unwatched = problem
