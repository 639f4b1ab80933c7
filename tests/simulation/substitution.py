"""Puts the simulated world in the place of the real one, and takes it away again.

The product's modules name what they use in their own globals (`threading`, `Tables`). Here every such
global that is one of `REPLACED` is set to its stand-in, in all modules of a member and of its log's
writer, wherever they have it. The product's source is as it is in production.
"""

from __future__ import annotations

import functools
import os
import pathlib
import sys
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import ModuleType
from typing import Any

import etcray.node.member  # so that every module of a member is loaded
import etcray_storage.log.writer
from etcray.raft.config import RaftConfig
from etcray.raft.raft import Raft
from etcray_storage.data_directory import DataDirectory
from etcray_storage.disk_space import Ballast
from etcray_storage.log import Log
from etcray_storage.machine.machine import StateMachine
from etcray_storage.mvcc.install import prepare_install
from etcray_storage.mvcc.snapshot import SnapshotReceiver
from etcray_storage.mvcc.tables import Tables
from tests.simulation import files, primitives

__all__ = ["etcray", "etcray_storage", "substituted"]


@functools.cache
def _modules(*prefixes: str) -> tuple[ModuleType, ...]:
    return tuple(
        module
        for name, module in sorted(sys.modules.items())
        if any(name == prefix or name.startswith(prefix + ".") for prefix in prefixes)
    )


@functools.cache
def _places(original_id: int, *prefixes: str) -> tuple[tuple[ModuleType, str], ...]:
    """Where modules of these packages have this object, as the product has them. Kept, because there
    are thousands of globals; the product's own objects live as long as the process."""
    return tuple(
        (module, name)
        for module in _modules(*prefixes)
        for name, found in vars(module).items()
        if id(found) == original_id
    )


class Replacements:
    """Changes of globals, which can be undone."""

    def __init__(self) -> None:
        self._undo: list[Callable[[], None]] = []

    def set(self, owner: Any, name: str, value: Any) -> None:
        """Of a module or a class."""
        previous = owner.__dict__[name]
        self._undo.append(lambda: setattr(owner, name, previous))
        setattr(owner, name, value)

    def replace(self, original: Any, value: Any, *prefixes: str) -> None:
        """Wherever a module of these packages has this very object under any name."""
        for module, name in _places(id(original), *prefixes):
            self.set(module, name, value)

    def limit(self, name: str, value: float) -> None:
        """A constant, in every module that has it."""
        found = [m for m in _modules("etcray", "etcray_storage") if name in vars(m)]
        assert found, f"there is no limit {name}"
        for module in found:
            self.set(module, name, value)

    def undo(self) -> None:
        while self._undo:
            self._undo.pop()()


MEMBER = ("etcray.node", "etcray_storage.log.writer", "etcray_storage.loading")


@contextmanager
def substituted(
    raft_class: type[Raft], machine_class: type[StateMachine], raft_limits: dict[str, Any]
) -> Iterator[Replacements]:
    """The simulated world; also a place for a profile's limits and for planted mistakes."""
    replacements = Replacements()
    try:
        for original, stand_in in primitives.MODULES.items():
            replacements.replace(original, stand_in, *MEMBER)
        replacements.replace(os, primitives.Os, *MEMBER)
        replacements.replace(traceback, primitives.Traceback, *MEMBER)
        replacements.replace(pathlib.Path, files.Path, *MEMBER)
        for real, simulated in (
            (DataDirectory, files.DataDirectory),
            (Log, files.Log),
            (Tables, files.Tables),
            (SnapshotReceiver, files.SnapshotReceiver),
            (Ballast, files.Ballast),
            (prepare_install, files.prepare_install),
            (Raft, raft_class),
            (StateMachine, machine_class),
            (RaftConfig, lambda **given: RaftConfig(**{**given, **raft_limits})),
        ):
            replacements.replace(real, simulated, *MEMBER)
        yield replacements
    finally:
        replacements.undo()
