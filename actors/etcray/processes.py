"""Processes of this machine: is one alive, and tell me at once when it ends.

Ray reports a death within about a second; the kernel does it in microseconds, through a file
descriptor that becomes readable when the process ends (pidfd, Linux). It is exact where a process id
is not: it stays with its process, so that an id that is used again, or a dead process that its parent
has not collected yet, does not pass for a living one.
"""

from __future__ import annotations

import contextlib
import os
import select
import time
from pathlib import Path


def process_started(process_id: int) -> float:
    """When the process started, in clock ticks since boot; 0.0 if it is gone or this is not Linux."""
    fields = _stat_fields(process_id)
    return float(fields[19]) if fields else 0.0


def process_lives(process_id: int, started: float = 0.0) -> bool:
    """Whether the process is there and not a zombie. With `started`, whether it is still that one."""
    try:
        os.kill(process_id, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass
    fields = _stat_fields(process_id)
    if not fields:
        return not Path("/proc/self/stat").exists()
    return fields[0] not in ("Z", "X") and (started == 0.0 or float(fields[19]) == started)


def wait_until_gone(process_ids: list[int], seconds: float) -> list[int]:
    """Wait until all have ended, at most so long; the ones that have not."""
    deadline = time.monotonic() + seconds
    left = [process_id for process_id in process_ids if process_lives(process_id)]
    while left and time.monotonic() < deadline:
        time.sleep(0.02)
        left = [process_id for process_id in left if process_lives(process_id)]
    return left


def _stat_fields(process_id: int) -> list[str]:
    """The fields of /proc/<pid>/stat from the third on: the second, the name, may hold anything."""
    try:
        text = Path(f"/proc/{process_id}/stat").read_text()
    except OSError:
        return []
    return text.rpartition(")")[2].split()


def descendants(process_id: int) -> list[int]:
    """All processes below this one, as far as /proc tells."""
    children: dict[int, list[int]] = {}
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = path.read_text().rpartition(")")[2].split()
        except OSError:
            continue
        children.setdefault(int(fields[1]), []).append(int(path.parent.name))
    found: list[int] = []
    waiting = [process_id]
    while waiting:
        below = children.get(waiting.pop(), [])
        found += below
        waiting += below
    return found


class ProcessWatch:
    """Waits for the end of watched processes, or for `wake`. One thread waits, any may wake it.

    On a system without pidfd nothing is watched, and `wait` is only a wait: Ray's slower reports of
    deaths are then all there is.
    """

    def __init__(self) -> None:
        self._poll = select.poll()
        self._wake_reader, self._wake_writer = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        self._poll.register(self._wake_reader, select.POLLIN)
        self._names: dict[int, str] = {}
        """File descriptor to the name of what is watched."""

    def watch(self, name: str, process_id: int) -> bool:
        """Watch this process under `name`, instead of what was watched under it. False: it is gone."""
        self.forget(name)
        if not hasattr(os, "pidfd_open"):
            return True
        try:
            descriptor = os.pidfd_open(process_id)
        except ProcessLookupError:
            return False
        self._names[descriptor] = name
        self._poll.register(descriptor, select.POLLIN)
        return True

    def forget(self, name: str) -> None:
        """Idempotent."""
        for descriptor in [d for d, watched in self._names.items() if watched == name]:
            self._poll.unregister(descriptor)
            del self._names[descriptor]
            os.close(descriptor)

    def wait(self, seconds: float) -> list[str]:
        """The names whose processes ended; each is told once and then forgotten."""
        ended: list[str] = []
        for descriptor, _ in self._poll.poll(max(0.0, seconds) * 1000):
            if descriptor == self._wake_reader:
                os.read(self._wake_reader, 4096)
            else:
                ended.append(self._names[descriptor])
        for name in ended:
            self.forget(name)
        return ended

    def wake(self) -> None:
        """End the current or the next `wait` early. From any thread."""
        with contextlib.suppress(BlockingIOError):  # The pipe is full of wake-ups already.
            os.write(self._wake_writer, b"x")
