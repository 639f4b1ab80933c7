"""Crashes, damage and full disks: everything acknowledged is there, or the log does not open."""

from __future__ import annotations

import os
import random
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from etcray_storage.engine import Engine
from etcray_storage.errors import StorageCorruptError
from etcray_storage.log import log as log_module
from etcray_storage.log import segment as segment_module
from etcray_storage.log.tip import TipFile
from etcray_storage.types import HardState, Index, MemberId, Term

from .log_workload import all_entries, entry, fill, record, segment_files, small


def _copy(source: Path, target: Path) -> Path:
    shutil.rmtree(target, ignore_errors=True)
    shutil.copytree(source, target)
    return target


def _outcome(directory: Path, last: int) -> str:
    """Open a damaged copy: `refused`, or `whole`. A shortened log fails the test."""
    refusal = None
    try:
        log = small(directory)
    except StorageCorruptError as e:
        refusal = str(e)
    if refusal is not None:
        assert str(directory) in refusal, f"the message names no file: {refusal}"
        assert "remove the member" in refusal or "replace this member" in refusal
        return "refused"
    try:
        assert log.last_index == last, f"{last} entries became {log.last_index} without a word"
        assert all_entries(log) == [entry(index) for index in range(log.first_index, last + 1)]
        assert log.hard_state == HardState(Term(1), MemberId(7), Index(0))
    finally:
        log.close()
    return "whole"


def _filled(directory: Path, count: int = 11) -> Path:
    """A closed log of several segments: the older ones checkpointed, the last one with a WAL."""
    log = small(directory)
    fill(log, count - 2)
    log.maintain()
    fill(log, 2)
    log.close()
    return directory


def test_copy_at_any_moment_has_all_that_was_acknowledged(tmp_path: Path) -> None:
    log = small(tmp_path / "log")
    for index in range(1, 26):
        log.append(record(index))
        if index % 5 == 0:
            log.maintain()
        if index == 15:
            log.compact(Index(9))
        assert _outcome(_copy(tmp_path / "log", tmp_path / "copy"), index) == "whole"
    log.close()


@pytest.mark.parametrize("operation", ["append", "rotate", "compact", "reset", "maintain", "create"])
def test_crash_between_any_two_steps_leaves_before_or_after(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, operation: str
) -> None:
    """Every call that touches the disk is a step; the files are copied as they are before each."""
    directory = tmp_path / "log"
    copies: list[Path] = []
    seen: list[list[tuple[str, int, int]]] = []

    def take_copy() -> None:
        stats = [(path.name, path.stat()) for path in sorted(directory.glob("*"))]
        state = [(name, stat.st_size, stat.st_mtime_ns) for name, stat in stats]
        if not seen or seen[-1] != state:
            seen.append(state)
            copies.append(_copy(directory, tmp_path / f"copy-{len(copies)}"))

    def watched(function: Callable[..., object]) -> Callable[..., object]:
        def call(*arguments: object, **keywords: object) -> object:
            take_copy()
            return function(*arguments, **keywords)

        return call

    directory.mkdir()
    if operation != "create":
        log = small(directory)
        fill(log, 3 if operation == "rotate" else 9)
        before = (log.base_index, log.last_index)
    else:
        before = (Index(0), Index(0))
    with monkeypatch.context() as patch:
        for owner, name in (
            (Engine, "execute"),
            (Engine, "attach"),
            (TipFile, "_write"),
            (Path, "unlink"),
            (Path, "rename"),
            (log_module, "sync_directory"),
            (segment_module, "sync_directory"),
        ):
            patch.setattr(owner, name, watched(getattr(owner, name)))
        match operation:
            case "append" | "rotate":
                log.append(record(log.last_index + 1))
            case "compact":
                log.compact(Index(8))
            case "reset":
                log.reset(Index(50), Term(1), log.hard_state)
            case "maintain":
                log.maintain()
            case "create":
                log = small(directory)
        take_copy()
    after = (log.base_index, log.last_index)
    log.close()
    assert len(copies) >= 2
    found = []
    for copy in copies:
        again = small(copy)
        found.append((again.base_index, again.last_index))
        expected = [entry(index) for index in range(again.first_index, again.last_index + 1)]
        assert all_entries(again) == expected
        again.append(record(again.last_index + 1))  # and it can go on
        again.close()
    assert set(found) <= {before, after}
    assert found == sorted(found), "a later step was undone"
    assert found[-1] == after


def test_kill_while_appending_keeps_all_acknowledged_records(tmp_path: Path) -> None:
    code = (
        "import sys, pathlib, threading; from tests.storage.log_workload import fill, small\n"
        "log = small(pathlib.Path(sys.argv[1])); stop = threading.Event()\n"
        "def work():\n"
        "    while not stop.wait(0.002):\n"
        "        log.maintain(); log.compact(max(log.base_index, log.last_index - 9))\n"
        "threading.Thread(target=work, daemon=True).start()\n"
        "while True: fill(log, 1); print(log.last_index, flush=True)"
    )
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    command = [sys.executable, "-c", code, str(tmp_path / "log")]
    acknowledged = 0
    for rounds in range(4):
        with subprocess.Popen(command, stdout=subprocess.PIPE, env=environment) as process:
            assert process.stdout is not None
            for number, line in enumerate(process.stdout, start=1):
                acknowledged = int(line)
                if number == 20 + 7 * rounds:
                    process.send_signal(signal.SIGKILL)  # what it printed since is still read
        log = small(tmp_path / "log")
        assert log.last_index in (acknowledged, acknowledged + 1)
        expected = [entry(index) for index in range(log.first_index, log.last_index + 1)]
        assert all_entries(log) == expected
        acknowledged = log.last_index
        log.close()
    assert acknowledged > 80


def test_missing_file_is_refused(tmp_path: Path) -> None:
    source = _filled(tmp_path / "log")
    for name in sorted(path.name for path in source.iterdir()):
        copy = _copy(source, tmp_path / "copy")
        (copy / name).unlink()
        assert _outcome(copy, 11) == "refused", name


def test_all_segments_missing_is_refused(tmp_path: Path) -> None:
    source = _filled(tmp_path / "log")
    for path in source.glob("log-*"):
        path.unlink()
    assert _outcome(source, 11) == "refused"


def test_segments_of_another_time_are_refused(tmp_path: Path) -> None:
    """A restored backup of some of the files."""
    log = small(tmp_path / "log")
    fill(log, 5)
    old = _copy(tmp_path / "log", tmp_path / "old")
    fill(log, 4)
    log.close()
    for name in (path.name for path in old.iterdir() if path.name != "tip"):
        copy = _copy(tmp_path / "log", tmp_path / "copy")
        shutil.copy(old / name, copy / name)
        _outcome(copy, 9)
    for name in segment_files(old):
        shutil.copy(old / name, tmp_path / "log" / name)
        shutil.copy(old / f"{name}.wal", tmp_path / "log" / f"{name}.wal")
    assert _outcome(tmp_path / "log", 9) == "refused"


def test_whole_log_beside_the_tip_of_another_is_refused(tmp_path: Path) -> None:
    """All segments come from somewhere else, unhurt and just as long: only the tip knows better."""
    for name, data in (("log", b"data"), ("other", b"else")):
        log = small(tmp_path / name)
        fill(log, 9, data)
        log.close()
    for path in (tmp_path / "log").glob("log-*"):
        path.unlink()
    for path in (tmp_path / "other").glob("log-*"):
        shutil.copy(path, tmp_path / "log" / path.name)
    assert _outcome(tmp_path / "log", 9) == "refused"


def test_row_of_another_log_in_its_place_is_refused(tmp_path: Path) -> None:
    """DuckDB finds nothing wrong, and the row's number is right: only the chain of checksums knows."""
    other = small(tmp_path / "other")
    fill(other, 9, b"else")
    ((record_of_other,),) = other._files_engine.query("SELECT record FROM log_1.records WHERE rowid = 2")
    other.close()
    log = small(tmp_path / "log")
    fill(log, 9)
    log._files_engine.execute("UPDATE log_1.records SET record = ? WHERE rowid = 2", (record_of_other,))
    log.close()
    assert _outcome(tmp_path / "log", 9) == "refused"


def test_refused_log_is_left_as_it_was_and_refused_again(tmp_path: Path) -> None:
    source = _filled(tmp_path / "log")
    wal = next(source.glob("*.wal"))
    os.truncate(wal, wal.stat().st_size - 1)
    before = {path.name: path.read_bytes() for path in source.iterdir()}
    for _ in range(3):
        assert _outcome(source, 11) == "refused"
        assert {path.name: path.read_bytes() for path in source.iterdir()} == before


_HEADER_BYTES = 12_288
"""The headers of a DuckDB file."""


@pytest.mark.parametrize(("suffix", "flips"), [(".wal", 120), (".duckdb", 80), ("tip", 40)])
def test_flipped_bit_is_refused_or_harmless(tmp_path: Path, suffix: str, flips: int) -> None:
    source = _filled(tmp_path / "log")
    rng = random.Random(suffix)
    files = [path.name for path in sorted(source.iterdir()) if path.name.endswith(suffix)]
    outcomes = set()
    for number in range(flips):
        name = files[number % len(files)]
        size = (source / name).stat().st_size
        place = rng.randrange(min(size, _HEADER_BYTES)) if number % 4 else rng.randrange(size)
        if suffix == "tip":
            place = rng.randrange(88) + 4096 * (number % 2)
        copy = _copy(source, tmp_path / "copy")
        content = bytearray((copy / name).read_bytes())
        content[place] ^= 1 << rng.randrange(8)
        (copy / name).write_bytes(content)
        outcomes.add(_outcome(copy, 11))
    assert outcomes == {"whole"} if suffix == "tip" else "refused" in outcomes


def test_shortened_file_is_refused_or_harmless(tmp_path: Path) -> None:
    source = _filled(tmp_path / "log")
    wal = next(source.glob("*.wal"))
    for size in range(0, wal.stat().st_size, 29):
        copy = _copy(source, tmp_path / "copy")
        os.truncate(copy / wal.name, size)
        assert _outcome(copy, 11) == "refused"
    for name in [*segment_files(source), "tip"]:
        whole = (source / name).stat().st_size
        for size in (0, 4096, whole // 2, whole - 1):
            copy = _copy(source, tmp_path / "copy")
            os.truncate(copy / name, min(size, whole))
            _outcome(copy, 11)


def test_torn_last_commit_that_was_not_acknowledged_is_dropped(tmp_path: Path) -> None:
    """The tip was not written: the process died in the commit. What follows is appended whole."""
    log = small(tmp_path / "log")
    fill(log, 2)
    tip = (tmp_path / "log" / "tip").read_bytes()
    wal = next((tmp_path / "log").glob("*.wal"))
    acknowledged = wal.stat().st_size
    fill(log, 1)
    torn = wal.stat().st_size
    log.close()
    for size in range(acknowledged, torn, 31):
        copy = _copy(tmp_path / "log", tmp_path / "copy")
        (copy / "tip").write_bytes(tip)
        os.truncate(copy / wal.name, size)
        again = small(copy)
        assert again.last_index == 2
        fill(again, 3)
        again.close()
        assert _outcome(copy, 5) == "whole"


def test_power_loss_with_an_old_tip_is_not_mistaken_for_damage(tmp_path: Path) -> None:
    log = small(tmp_path / "log")
    fill(log, 1)
    old_tip = (tmp_path / "log" / "tip").read_bytes()
    fill(log, 2)
    log.close()
    (tmp_path / "log" / "tip").write_bytes(old_tip)
    assert _outcome(tmp_path / "log", 3) == "whole"


def _in_small_filesystem(code: str, directory: Path, size: str) -> subprocess.CompletedProcess[str]:
    """Run Python code whose `root` is a file system of this size of its own."""
    directory.mkdir()
    script = f"mount -t tmpfs -o size={size} none '{directory}' && exec '{sys.executable}' -c \"$CODE\""
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path), "CODE": code, "ROOT": str(directory)}
    return subprocess.run(
        ["unshare", "--user", "--map-root-user", "--mount", "sh", "-c", script],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )


_FULL_DISK = """
import os, pathlib
from etcray_storage.errors import StorageFullError
from tests.storage.log_workload import all_entries, entry, fill, record
from etcray_storage.log import Log
root = pathlib.Path(os.environ["ROOT"]); ballast = root / "ballast"
open_log = lambda: Log.open(root / "log", segment_rows=ROWS, cache_bytes=0)
log = open_log(); refused = 0
for free in (0, 4096, 12288, 20480, 65536):
    fill(log, 3)
    space = os.statvfs(root); count = max(space.f_bavail * space.f_bsize - free, 0)
    ballast.write_bytes(bytes(count))
    while True:
        last, state = log.last_index, log.hard_state
        try:
            log.append(record(last + 1, count=3, data=os.urandom(2000)))
        except StorageFullError:
            refused += 1
            assert (log.last_index, log.hard_state) == (last, state)
            assert len(log.entries(1, last, 1 << 40)) == last
            break
    log.maintain()
    ballast.unlink()
    expected = log.entries(1, log.last_index, 1 << 40)
    log.append(record(log.last_index + 1)); expected.append(entry(log.last_index))
    if free == 12288:
        log.close(); log = open_log()
    assert all_entries(log) == expected
log.close(); log = open_log()
assert all_entries(log) == expected
assert refused == 5, refused
print("passed")
"""


@pytest.mark.parametrize("rows", [4, 1000])
def test_full_disk_changes_nothing_and_can_be_waited_out(tmp_path: Path, rows: int) -> None:
    trial = _in_small_filesystem("print('works')", tmp_path / "trial", "64k")
    if trial.returncode:
        pytest.skip(f"no file system of one's own here: {trial.stderr.strip()}")
    result = _in_small_filesystem(_FULL_DISK.replace("ROWS", str(rows)), tmp_path / "disk", "24m")
    assert result.stdout == "passed\n", result.stderr
