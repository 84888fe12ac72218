"""One task for each monitor: it sets the links behind it, and again when they may have been lost.

No connection is held, since QEMU serves one client of a monitor at a time and the next one may be
the user's. So nobody tells that a machine was started again, was resumed or went back to a
snapshot: what is set is set again after a while (decision 17). Runs in the thread of
``guest_links`` and brings asyncio along.
"""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import Callable, Mapping
from errno import ETIMEDOUT
from typing import Final

from xconnectd.monitor_address import Monitor, MonitorAddress
from xconnectd.qemu import connection, hmp_session, qmp_session
from xconnectd.qemu.connection import MonitorError
from xconnectd.qemu.outcome import Outcome, Pace

_Wanted = Mapping[MonitorAddress, bool]
_Tell = Callable[[MonitorAddress, Outcome], None]

_SET_LINKS: Final = {"qmp": qmp_session.set_links, "hmp": hmp_session.set_links}
_MOST_TALKS: Final = 16
"""At once. 200 would take 5 MB more, and have other threads wait for 30 ms in place of 10."""
_ATTEMPTS: Final = 3
"""To put links back."""
_BREAK_OFF: Final = 0.1
"""Seconds for closing connections, which takes none unless QEMU does not read."""
_GIVE_UP: Final = 60.0
"""Seconds to wait for a monitor that somebody else has, only for that."""


def run(
    begin: Callable[[Callable[[_Wanted], object]], None],
    tell: _Tell,
    is_over: Callable[[bool], bool],
    pace: Pace,
) -> None:
    """Of the thread: all of it, until ``is_over`` says so.

    ``begin`` gets the function by which any thread says what is wanted. ``tell`` gets what came of
    each attempt, and ``is_over`` whether nothing is left to do.
    """

    async def serve() -> None:
        loop = asyncio.get_running_loop()
        # qemu.qmp leaves failures to nobody when it is broken off, and asyncio would print them.
        loop.set_exception_handler(lambda *_: None)
        machines = Machines(tell, pace)
        begin(lambda wanted: loop.call_soon_threadsafe(machines.want, wanted))
        await asyncio.sleep(0)  # until that is known to be wanted
        await machines.run(is_over)

    asyncio.run(serve())


class Machines:
    """All that is wanted, by monitor."""

    def __init__(self, tell: _Tell, pace: Pace) -> None:
        self._tell = tell
        self._pace = pace
        self._talks = asyncio.Semaphore(_MOST_TALKS)
        self._machines: dict[Monitor, _Machine] = {}

    def want(self, wanted: _Wanted) -> None:
        """Replaces all that was wanted. Links that were set off and are in it no more go on."""
        self._forget_the_idle()
        by_monitor: dict[Monitor, dict[str, bool]] = {monitor: {} for monitor in self._machines}
        for address, carrier in wanted.items():
            by_monitor.setdefault(address.monitor, {})[address.netdev] = carrier
        for monitor, carriers in by_monitor.items():
            if monitor not in self._machines:
                self._machines[monitor] = _Machine(monitor, self._tell, self._pace, self._talks)
            self._machines[monitor].want(carriers)

    async def run(self, is_over: Callable[[bool], bool]) -> None:
        while not is_over(self._forget_the_idle()):
            await asyncio.sleep(self._pace.look)
            for machine in self._machines.values():
                machine.look_at_socket()
        await self._break_off()

    async def _break_off(self) -> None:
        """Each closes its connection by itself: asyncio ends all tasks at once, qemu.qmp's too."""
        tasks = [machine.cancel() for machine in self._machines.values()]
        if tasks:
            await asyncio.wait(tasks, timeout=_BREAK_OFF)

    def _forget_the_idle(self) -> bool:
        """Whether no machine is left."""
        for monitor in [each for each, machine in self._machines.items() if machine.is_idle]:
            del self._machines[monitor]
        return not self._machines


class _Machine:
    """One monitor, what is wanted of the netdevs behind it, and the task that sees to it."""

    def __init__(self, monitor: Monitor, tell: _Tell, pace: Pace, talks: asyncio.Semaphore) -> None:
        self._monitor = monitor
        self._tell = tell
        self._pace = pace
        self._talks = talks
        self._wanted: dict[str, bool] = {}
        self._put_back: set[str] = set()
        """Netdevs that are wanted no more and may be off."""
        self._off: set[str] = set()
        """Netdevs that may be off: until it is known that they are on. A killed daemon says not."""
        self._set: dict[str, bool] = {}
        """What this machine has accepted."""
        self._failures = 0
        self._socket = _socket_file(monitor)
        self._changed = asyncio.Event()
        self._task = asyncio.create_task(self._keep())

    @property
    def is_idle(self) -> bool:
        """Raises what ended the task if that was a fault of ours."""
        return self._task.done() and self._task.result() is None

    def cancel(self) -> asyncio.Task[None]:
        self._task.cancel()
        return self._task

    def want(self, carriers: dict[str, bool]) -> None:
        if carriers == self._wanted:
            return
        self._off |= carriers.keys() - self._wanted.keys()
        self._wanted = carriers
        self._put_back = self._off - carriers.keys()
        self._changed.set()

    def look_at_socket(self) -> None:
        """Whoever listens at another socket of that name is another machine, or the next one."""
        found = _socket_file(self._monitor)
        if found == self._socket:
            return
        self._socket = found
        self._failures = 0
        self._set.clear()
        self._changed.set()

    async def _keep(self) -> None:
        while self._carriers():
            self._changed.clear()
            await self._attempt()
            await asyncio.sleep(self._pace.between)
            if self._carriers():
                await self._wait()

    def _carriers(self) -> dict[str, bool]:
        return self._wanted | dict.fromkeys(self._put_back, True)

    async def _wait(self) -> None:
        """For another wish or another socket, or until it is time to set all of it again."""
        if not await _happens(self._changed, self._seconds()):
            self._set.clear()

    def _seconds(self) -> float:
        if self._failures:
            doubled = self._pace.first_retry * 2.0 ** min(self._failures - 1, 16)
            return min(doubled, self._pace.last_retry)
        return self._pace.again_off if self._off else self._pace.again_on

    async def _attempt(self) -> None:
        """Sets what is not known to be set, or else all of it, and tells what came of it."""
        try:
            async with asyncio.timeout(self._pace.timeout):
                client = await connection.connect(self._monitor)
            with client:
                await self._wait_for_turn(client)
                async with self._talks:
                    await self._set_links(client)
        except TimeoutError:
            self._fail(connection.unreachable(self._monitor, OSError(ETIMEDOUT, "")))
        except MonitorError as error:
            self._fail(error)
        except Exception as error:  # noqa: BLE001 (the other machines are not to suffer)
            self._fail(connection.garbled(self._monitor, repr(error)[:200]))

    async def _wait_for_turn(self, client: socket.socket) -> None:
        """QEMU takes the next client, and greets it, when the one before has gone.

        Who gives up stays in its queue of two nevertheless, and keeps others out.
        """
        loop = asyncio.get_running_loop()
        greeted = asyncio.Event()
        silence = connection.silent(self._monitor)
        loop.add_reader(client, greeted.set)
        try:
            end = loop.time() + _GIVE_UP
            while not await _happens(greeted, self._pace.timeout):
                if not self._wanted and (not self._put_back or loop.time() > end):
                    raise silence
                self._tell_all(str(silence))
        finally:
            loop.remove_reader(client)

    async def _set_links(self, client: socket.socket) -> None:
        self._changed.clear()  # what changed while it waited is in it
        carriers = self._carriers()
        new = {name: on for name, on in carriers.items() if self._set.get(name) is not on}
        carriers = new or carriers
        self._off |= {netdev for netdev, carrier in carriers.items() if not carrier}
        set_links = _SET_LINKS[self._monitor.protocol]
        answers = await set_links(client, self._monitor, carriers, self._pace.timeout)
        self._failures = self._failures + 1 if any(answers.values()) else 0
        for netdev, carrier in carriers.items():
            if not answers[netdev]:
                self._set[netdev] = carrier
            if carrier and (not answers[netdev] or netdev in self._put_back):
                self._off.discard(netdev)
                self._put_back.discard(netdev)
            self._tell(MonitorAddress(self._monitor, netdev), Outcome(carrier, answers[netdev]))

    def _fail(self, error: MonitorError) -> None:
        """Nothing could be set, or not all. Who is gone will start with everything on."""
        self._failures += 1
        self._set.clear()
        if self._failures >= _ATTEMPTS:
            self._off -= self._put_back
            self._put_back.clear()
        self._tell_all(str(error))

    def _tell_all(self, error: str) -> None:
        for netdev, carrier in self._wanted.items():
            self._tell(MonitorAddress(self._monitor, netdev), Outcome(carrier, error))


async def _happens(event: asyncio.Event, seconds: float) -> bool:
    """Whether it does within this time."""
    try:
        async with asyncio.timeout(seconds):
            await event.wait()
    except TimeoutError:
        return False
    return True


def _socket_file(monitor: Monitor) -> tuple[int, int, int] | None:
    """What differs between two sockets of one path; None if there is none, or it is by TCP."""
    if not monitor.path:
        return None
    try:
        found = os.stat(monitor.path)  # noqa: PTH116 (each quarter of a second, for each monitor)
    except OSError:
        return None
    return found.st_dev, found.st_ino, found.st_ctime_ns
