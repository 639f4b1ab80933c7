"""What the operating system is asked to take away from a worker, before it sees any SQL.

Each piece holds on its own, whatever happens inside DuckDB or Python:

- *Landlock* (Linux 5.13 and later): only the parts can be opened, and only for reading, and what the kernel
  tells in /proc and /sys, because DuckDB looks for its memory there whenever an instance begins. (Of other
  processes, Landlock hides what is more than their names.) No other file, no program to execute, no TCP
  connection (6.7), no signal to a process outside (6.12).
- *Limits*: no file can grow (so a pipe is the only thing to write to), few files are open at once, no core
  dumps, and a bound on the address space, which also catches what DuckDB does not count as its memory.
- *No privileges*: no capabilities, so that a file's mode holds for root as well, and none can be gained.
- *Its life*: the worker is killed with its parent, and is the first that the kernel takes when memory runs
  out.

Landlock, capabilities and privileges belong to a thread and are inherited by the ones it starts. So the
caller has no other thread when it calls `confine`; otherwise nothing would hold for that one.
"""

from __future__ import annotations

import ctypes
import os
import resource
from contextlib import suppress
from ctypes import byref, c_int, c_long, c_uint32, c_uint64
from pathlib import Path
from typing import Final

from etcray_storage.limits import HISTORY_QUERY_FILES_MAX, MIB

NO_THREADS: Final = {
    "OMP_NUM_THREADS": "1",
    "OPENBLAS_NUM_THREADS": "1",
    "JE_ARROW_MALLOC_CONF": "background_thread:false",
    "MALLOC_ARENA_MAX": "2",
}
"""Environment variables that keep libraries from starting threads before `confine`."""

_PR_SET_PDEATHSIG: Final = 1
_PR_SET_NO_NEW_PRIVS: Final = 38
_SIGKILL: Final = 9

_SYS_LANDLOCK_CREATE_RULESET: Final = 444
_SYS_LANDLOCK_ADD_RULE: Final = 445
_SYS_LANDLOCK_RESTRICT_SELF: Final = 446
_LANDLOCK_CREATE_RULESET_VERSION: Final = 1
_LANDLOCK_RULE_PATH_BENEATH: Final = 1
_READ_FILE: Final = 1 << 2
_READ_DIR: Final = 1 << 3
_FILE_RIGHTS_BY_VERSION: Final = {1: 13, 2: 14, 3: 15, 4: 15, 5: 16}
"""How many rights there are; later versions have as many as the last."""
_TCP_RIGHTS: Final = 0b11
_SCOPES: Final = 0b11
_KERNEL: Final = (Path("/proc"), Path("/sys"))

_LINUX_CAPABILITY_VERSION_3: Final = 0x20080522


class _Ruleset(ctypes.Structure):
    _fields_ = (("files", c_uint64), ("network", c_uint64), ("scoped", c_uint64))


class _PathBeneath(ctypes.Structure):
    _pack_ = 1
    _fields_ = (("allowed", c_uint64), ("parent", c_int))


class _CapabilityHeader(ctypes.Structure):
    _fields_ = (("version", c_uint32), ("pid", c_int))


class _CapabilityData(ctypes.Structure):
    _fields_ = (("effective", c_uint32), ("permitted", c_uint32), ("inheritable", c_uint32))


def confine(readable: Path, address_space_mib: int) -> None:
    """Give all of it up, for good. `readable` is the only directory whose files can still be opened.

    Raises OSError where the system refuses something that it should grant. A kernel without Landlock is not
    an error: the other layers remain.
    """
    threads = len(os.listdir("/proc/self/task"))
    assert threads == 1, f"{threads} threads: what is given up here holds only for the one that gives it up"
    libc = ctypes.CDLL(None, use_errno=True)
    with suppress(OSError):  # may be forbidden in a container, and is only a preference
        Path("/proc/self/oom_score_adj").write_text("1000")
    _check(libc.prctl(_PR_SET_PDEATHSIG, _SIGKILL, 0, 0, 0), "prctl(PR_SET_PDEATHSIG)")
    limit_resources(address_space_mib)
    _check(libc.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0), "prctl(PR_SET_NO_NEW_PRIVS)")
    restrict_files(libc, readable)
    drop_capabilities(libc)


def limit_resources(address_space_mib: int) -> None:
    """The address space is bounded relative to what is mapped now, which is mostly libraries."""
    mapped = int(Path("/proc/self/statm").read_text().split()[0]) * os.sysconf("SC_PAGE_SIZE")
    limits = {
        resource.RLIMIT_FSIZE: 0,
        resource.RLIMIT_CORE: 0,
        resource.RLIMIT_NOFILE: HISTORY_QUERY_FILES_MAX,
        resource.RLIMIT_AS: mapped + address_space_mib * MIB,
    }
    for kind, limit in limits.items():
        resource.setrlimit(kind, (limit, limit))


def restrict_files(libc: ctypes.CDLL, readable: Path) -> bool:
    """Landlock: False where the kernel has none."""
    syscall = libc.syscall
    syscall.restype = c_long
    version = syscall(
        c_long(_SYS_LANDLOCK_CREATE_RULESET), None, c_long(0), c_long(_LANDLOCK_CREATE_RULESET_VERSION)
    )
    if version < 1:
        return False
    files = (1 << _FILE_RIGHTS_BY_VERSION.get(version, 16)) - 1
    ruleset = _Ruleset(files, _TCP_RIGHTS if version >= 4 else 0, _SCOPES if version >= 6 else 0)
    size = 24 if version >= 6 else 16 if version >= 4 else 8
    rules = syscall(c_long(_SYS_LANDLOCK_CREATE_RULESET), byref(ruleset), c_long(size), c_long(0))
    _check(rules, "landlock_create_ruleset")
    try:
        _allow(libc, rules, readable, _READ_FILE | _READ_DIR)
        for path in _KERNEL:
            _allow(libc, rules, path, _READ_FILE)
        _check(
            syscall(c_long(_SYS_LANDLOCK_RESTRICT_SELF), c_long(rules), c_long(0)), "landlock_restrict_self"
        )
    finally:
        os.close(rules)
    return True


def _allow(libc: ctypes.CDLL, rules: int, path: Path, rights: int) -> None:
    parent = os.open(path, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        rule = _PathBeneath(rights, parent)
        call, kind = c_long(_SYS_LANDLOCK_ADD_RULE), c_long(_LANDLOCK_RULE_PATH_BENEATH)
        _check(libc.syscall(call, c_long(rules), kind, byref(rule), c_long(0)), "landlock_add_rule")
    finally:
        os.close(parent)


def drop_capabilities(libc: ctypes.CDLL) -> None:
    """Of root; anyone else has none."""
    header = _CapabilityHeader(_LINUX_CAPABILITY_VERSION_3, 0)
    nothing = (_CapabilityData * 2)()
    _check(libc.capset(byref(header), byref(nothing)), "capset")


def _check(result: int, call: str) -> None:
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, f"{call}: {os.strerror(number)}")
