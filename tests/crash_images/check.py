"""Opens a member on an image, and judges what it finds."""

from __future__ import annotations

import re
import shutil
import zlib
from pathlib import Path
from typing import Final

import msgspec

from etcray.node.recovery import recover
from etcray.spec import ClusterSpec
from etcray_storage.data_directory import DataDirectory
from etcray_storage.errors import OperatingError
from etcray_storage.types import Index
from tests.crash_images.disk import Image
from tests.crash_images.journal import Call, Operation
from tests.crash_images.workload import Promise, Truth, digest

ENTRIES_BYTES_MAX: Final = 1 << 30


class Promised:
    """Everything that the member has told others up to a boundary, as one requirement."""

    def __init__(self) -> None:
        self.term = 0
        self.votes: dict[int, int] = {}
        self.match = 0

    def add(self, call: Call) -> None:
        assert call.operation is Operation.MARK
        for line in call.data.splitlines():
            promise = msgspec.json.decode(line, type=Promise)
            self.term = max(self.term, promise.term)
            self.match = max(self.match, promise.match)
            if promise.vote:
                voted = self.votes.setdefault(promise.term, promise.vote)
                assert voted == promise.vote, f"the member voted twice in term {promise.term}"


class Broken(AssertionError):
    """An image on which the member does not keep what it promised."""


def write_image(image: Image, directory: Path) -> None:
    """Lay the image out as real files."""
    shutil.rmtree(directory, ignore_errors=True)
    directory.mkdir(parents=True)
    for path in sorted(image):
        content = image[path]
        if content is None:
            (directory / path).mkdir()
        else:
            (directory / path).write_bytes(content.data)


def open_and_judge(directory: Path, cluster: ClusterSpec, promised: Promised, truth: Truth) -> str:
    """Open the first member of `cluster` on `directory`: "started", or "refused: " and the reason.

    Raises Broken if anything that was promised is not there, or if a refusal is of no help."""
    spec = cluster.members[0]
    try:
        owned = DataDirectory.open(directory, cluster.cluster_id, spec.id, cluster.name, spec.name)
        try:
            recovered = recover(owned, cluster)
        except BaseException:
            owned.close()
            raise
    except OperatingError as error:
        return _judge_refusal(str(error), directory)
    try:
        log, machine = recovered.log, recovered.machine
        _judge_hard_state(log.hard_state.term, log.hard_state.vote, promised)
        if log.last_index < promised.match:
            raise Broken(
                f"entries up to {promised.match} were acknowledged, the log ends at {log.last_index}"
            )
        entries = (
            log.entries(log.first_index, log.last_index, ENTRIES_BYTES_MAX)
            if log.last_index >= log.first_index
            else []
        )
        for entry in entries:
            found = (int(entry.term), zlib.crc32(entry.data))
            if entry.index <= promised.match and truth.entries[entry.index] != found:
                raise Broken(f"entry {entry.index} of term {entry.term} is not what was acknowledged")
        target = max(promised.match, recovered.commit_index)
        for entry in entries:
            if machine.applied_index < entry.index <= target:
                machine.apply(entry)
        if machine.applied_index < target:
            raise Broken(f"applied up to {machine.applied_index}, {target} is committed or acknowledged")
        _judge_state(machine.applied_index, digest(machine), truth)
    finally:
        recovered.log.close()
        recovered.tables.close()
        owned.close()
    return "started"


def _judge_hard_state(term: int, vote: int, promised: Promised) -> None:
    if term < promised.term:
        raise Broken(f"term {promised.term} was promised, the log has {term}")
    if promised.votes.get(term, vote) != vote:
        raise Broken(f"in term {term} the vote was for {promised.votes[term]:x}, the log has {vote:x}")


def _judge_state(index: Index, state: int, truth: Truth) -> None:
    if index and truth.states[index] != state:
        raise Broken(f"the state after entry {index} is not what the cluster had there")


def _judge_refusal(message: str, directory: Path) -> str:
    """A refusal says where, what and what to do; in the report its numbers do not matter."""
    if str(directory) not in message:
        raise Broken(f"a refusal that does not say where: {message}")
    return "refused: " + re.sub(r"\d+", "#", message.replace(str(directory), "DIRECTORY"))
