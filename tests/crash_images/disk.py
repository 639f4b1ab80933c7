"""A model of a disk that knows what is synced, and the images that a power loss may leave of it.

Files are bytes plus the unsynced writes among them; directories are names plus the names as last
synced. The rules are the weakest that POSIX gives: a write is safe after a sync of its file, a name
(created, renamed, removed) after a sync of its directory, and until then anything may be missing.
"""

from __future__ import annotations

import hashlib
import os
import random
from collections.abc import Iterator
from functools import cached_property
from pathlib import PurePosixPath
from typing import Final, NamedTuple

from tests.crash_images.journal import Call, Operation

SECTOR_BYTES: Final = 512
"""What a disk writes as a whole."""

DROPS_PER_BOUNDARY: Final = 2
"""How many of the unsynced writes are left out in turn, each in an image of its own: chosen by chance."""


class Write(NamedTuple):
    """An unsynced change of a file's bytes: data at an offset, or (data None) a new length."""

    offset: int
    data: bytes | None


class Content:
    """The bytes of a file at one time. The digest is computed once: most images share most files."""

    def __init__(self, data: bytes) -> None:
        self.data = data

    @cached_property
    def digest(self) -> bytes:
        return hashlib.blake2b(self.data, digest_size=16).digest()


class File:
    def __init__(self) -> None:
        self.synced = Content(b"")
        """What is certain to be there."""
        self.pending: list[Write] = []
        """Since the last sync, in order."""
        self._current = self.synced

    def add(self, write: Write) -> None:
        self.pending.append(write)
        self._current = Content(replay(self._current.data, [write]))

    def content(self) -> Content:
        """With all unsynced writes."""
        return self._current

    def without(self, place: int) -> Content:
        """With all unsynced writes but one."""
        return Content(replay(self.synced.data, self.pending[:place] + self.pending[place + 1 :]))

    def before(self, place: int) -> bytes:
        """With the unsynced writes that came earlier than this one."""
        return replay(self.synced.data, self.pending[:place])

    def sync(self) -> None:
        self.synced = self._current
        self.pending = []


def replay(content: bytes, writes: list[Write]) -> bytes:
    """The content after these writes; a gap reads as zeros."""
    if not writes:
        return content
    result = bytearray(content)
    for offset, data in writes:
        if data is None:
            del result[offset:]
            result.extend(bytes(offset - len(result)))
        else:
            result.extend(bytes(max(0, offset - len(result))))
            result[offset : offset + len(data)] = data
    return bytes(result)


class Directory:
    def __init__(self) -> None:
        self.names: dict[str, Node] = {}
        self.synced: dict[str, Node] = {}


Node = File | Directory

Image = dict[str, Content | None]
"""Path below the root to content; None for a directory."""


class Disk:
    """Plays calls back. The root exists and is synced from the beginning."""

    def __init__(self, root: str) -> None:
        self._root_path = PurePosixPath(root)
        self._root = Directory()
        self._open: dict[int, Node] = {}
        self._last: tuple[File, int] | None = None
        """The newest unsynced write: its file, and its place among that file's pending writes."""

    def perform(self, call: Call) -> bool:
        """Play one call. Whether what a power loss may leave has changed by it."""
        match call.operation:
            case Operation.OPEN:
                return self._opened(call)
            case Operation.WRITE:
                return self._wrote(call.descriptor, Write(call.offset, call.data))
            case Operation.TRUNCATE:
                return self._wrote(call.descriptor, Write(call.length, None))
            case Operation.SYNC:
                self._sync(self._open[call.descriptor])
            case Operation.CLOSE:
                self._open.pop(call.descriptor)
                return False
            case Operation.RENAME:
                self._rename(call.path, call.other)
            case Operation.UNLINK | Operation.RMDIR:
                parent, name = self._place(call.path)
                del parent.names[name]
            case Operation.MKDIR:
                if PurePosixPath(call.path) == self._root_path:
                    return False
                parent, name = self._place(call.path)
                parent.names[name] = Directory()
            case Operation.MARK:
                return False
        return True

    # --- images -------------------------------------------------------------------------------

    def images(self, chance: random.Random) -> Iterator[tuple[str, Image]]:
        """What may be left if the power fails now, each with a name for its kind."""
        yield "everything", self._image(synced_names=False)
        yield "only what was synced", self._image(synced_names=True, synced_bytes=True)
        yield "no unsynced name", self._image(synced_names=True)
        pending = [(file, place) for file in self._files() for place in range(len(file.pending))]
        for file, place in chance.sample(pending, min(DROPS_PER_BOUNDARY, len(pending))):
            yield "one write lost", self._image(synced_names=False, replaced={file: file.without(place)})
        if self._last is None:
            return
        file, place = self._last
        data = file.pending[place].data
        if data is None:
            return
        before, offset = file.before(place), file.pending[place].offset
        if len(data) > SECTOR_BYTES:
            first_sector_end = SECTOR_BYTES - offset % SECTOR_BYTES
            cut = chance.choice(range(first_sector_end, len(data), SECTOR_BYTES))
            for kind, kept in (
                ("torn", Write(offset, data[:cut])),
                ("torn", Write(offset + cut, data[cut:])),
            ):
                yield kind, self._image(synced_names=False, replaced={file: Content(replay(before, [kept]))})
        zeros = Content(replay(before, [Write(offset, bytes(len(data)))]))
        yield "zeros", self._image(synced_names=False, replaced={file: zeros})

    def _image(
        self, *, synced_names: bool, synced_bytes: bool = False, replaced: dict[File, Content] | None = None
    ) -> Image:
        image: Image = {}
        stack: list[tuple[str, Directory]] = [("", self._root)]
        while stack:
            prefix, directory = stack.pop()
            for name, node in (directory.synced if synced_names else directory.names).items():
                path = f"{prefix}{name}"
                if isinstance(node, Directory):
                    image[path] = None
                    stack.append((f"{path}/", node))
                elif replaced is not None and node in replaced:
                    image[path] = replaced[node]
                else:
                    image[path] = node.synced if synced_bytes else node.content()
        return image

    def _files(self) -> list[File]:
        found: list[File] = []
        stack = [self._root]
        while stack:
            for node in stack.pop().names.values():
                if isinstance(node, Directory):
                    stack.append(node)
                else:
                    found.append(node)
        return found

    # --- calls --------------------------------------------------------------------------------

    def _opened(self, call: Call) -> bool:
        if PurePosixPath(call.path) == self._root_path:
            self._open[call.descriptor] = self._root
            return False
        parent, name = self._place(call.path)
        node = parent.names.get(name)
        is_new = node is None
        if node is None:
            assert call.flags & os.O_CREAT, f"{call.path} was opened, and nothing is there"
            node = parent.names[name] = File()
        self._open[call.descriptor] = node
        if call.flags & os.O_TRUNC and isinstance(node, File) and not is_new:
            self._wrote(call.descriptor, Write(0, None))
            return True
        return is_new

    def _wrote(self, descriptor: int, write: Write) -> bool:
        file = self._open[descriptor]
        assert isinstance(file, File), f"descriptor {descriptor} is a directory"
        file.add(write)
        self._last = (file, len(file.pending) - 1)
        return True

    def _sync(self, node: Node) -> None:
        if isinstance(node, Directory):
            node.synced = dict(node.names)
            return
        node.sync()
        if self._last is not None and self._last[0] is node:
            self._last = None

    def _rename(self, source: str, target: str) -> None:
        from_parent, from_name = self._place(source)
        to_parent, to_name = self._place(target)
        to_parent.names[to_name] = from_parent.names.pop(from_name)

    def _place(self, path: str) -> tuple[Directory, str]:
        """The directory that holds the name, and the name."""
        *parents, name = PurePosixPath(path).relative_to(self._root_path).parts
        directory = self._root
        for part in parents:
            below = directory.names[part]
            assert isinstance(below, Directory), f"{part} in {path} is a file"
            directory = below
        return directory, name
