"""Runs mutants against the tests that are to notice them, and says what came of it."""

from __future__ import annotations

import queue
import signal
import tempfile
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final

import msgspec

from etcray.node.opened import EXIT_FATAL
from tests.mutants.mutant import MisfitError, Mutant
from tests.mutants.workshop import TEST_SECONDS_MAX, Outcome, Workshop

CAUGHT: Final = "caught"
SURVIVED: Final = "SURVIVED"
BROKEN: Final = "BROKEN"
"""The mutant does not fit, is no program, or its tests could not be run."""

_DETAIL_CHARACTERS_MAX: Final = 160

_MEMBER_ENDED: Final = EXIT_FATAL
"""Exit status of a process, here that of the tests, in which a member found that something is wrong."""


_DIED_AFTER_THE_REPORT: Final = (-signal.SIGABRT, -signal.SIGSEGV)
"""A test that fails may leave databases and threads behind, of which an interpreter that ends can die. The
report of all tests is written before."""


class Result(msgspec.Struct, frozen=True):
    """What happened to one mutant."""

    name: str
    row: str
    verdict: str
    test: str
    """The first that failed, if one did."""
    detail: str
    seconds: float


def check_sound(mutants: Sequence[Mutant]) -> Outcome:
    """Run every test that the mutants name, once, on the sources as they are: all of them must pass."""
    tests = sorted({test for mutant in mutants for test in mutant.caught_by})
    with tempfile.TemporaryDirectory(prefix="mutants-") as directory:
        return Workshop(Path(directory)).run(tests)


def seconds_max(mutant: Mutant, sound: Outcome) -> float:
    """How long one test of a mutant may take, going by what they take on the sources as they are. With
    many mistakes a test never ends; waiting for longer than this would tell nothing new."""
    took = [seconds for test, seconds in sound.seconds.items() if test.startswith(mutant.caught_by)]
    return min(TEST_SECONDS_MAX, 20.0 + 15.0 * max(took)) if took else TEST_SECONDS_MAX


def run(
    mutants: Sequence[Mutant], jobs: int, tell: Callable[[Result], None], sound: Outcome | None = None
) -> list[Result]:
    """Run all mutants, each by itself; `tell` is called with each result as it comes."""
    waiting: queue.SimpleQueue[Mutant] = queue.SimpleQueue()
    for mutant in mutants:
        waiting.put(mutant)
    results: list[Result] = []
    lock = threading.Lock()

    def work(directory: Path) -> None:
        workshop = Workshop(directory)
        while True:
            try:
                mutant = waiting.get_nowait()
            except queue.Empty:
                return
            limit = TEST_SECONDS_MAX if sound is None else seconds_max(mutant, sound)
            result = _run_one(workshop, mutant, limit)
            with lock:
                results.append(result)
                tell(result)

    with tempfile.TemporaryDirectory(prefix="mutants-") as temporary:
        threads = [
            threading.Thread(target=work, args=(Path(temporary) / str(number),))
            for number in range(min(jobs, len(mutants)))
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert len(results) == len(mutants), f"{len(results)} results of {len(mutants)} mutants"
    return results


def _run_one(workshop: Workshop, mutant: Mutant, test_seconds: float) -> Result:
    begun = time.monotonic()
    try:
        with workshop.applied(mutant):
            outcome = workshop.run(mutant.caught_by, "-x", test_seconds=test_seconds)
    except MisfitError as e:
        return Result(mutant.name, mutant.row, BROKEN, "", str(e), 0.0)
    verdict, test, detail = _judge(outcome)
    return Result(
        mutant.name,
        mutant.row,
        verdict,
        test,
        " ".join(detail.split())[:_DETAIL_CHARACTERS_MAX],
        round(time.monotonic() - begun, 1),
    )


def _judge(outcome: Outcome) -> tuple[str, str, str]:
    """Verdict, test, detail. Anything but a plain failure or a plain success of tests is no verdict."""
    verdict = next((failure for failure in outcome.failures if failure.is_verdict), None)
    if verdict is not None and (outcome.exit_status == 1 or outcome.exit_status in _DIED_AFTER_THE_REPORT):
        return CAUGHT, verdict.test, verdict.message
    if outcome.exit_status == _MEMBER_ENDED:
        return CAUGHT, "", "a member noticed it, and ended the process"
    if outcome.exit_status == 0 and outcome.passed:
        return SURVIVED, "", f"{outcome.passed} tests passed"
    why = next((failure.message for failure in outcome.failures), outcome.output[-_DETAIL_CHARACTERS_MAX:])
    return BROKEN, "", f"pytest ended with {outcome.exit_status}: {why}"
