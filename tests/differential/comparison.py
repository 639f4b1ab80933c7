"""Sends the same requests to both sides, one at a time, and stops at the first unexplained difference."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

from etcray_storage.errors import Code, EtcdError
from tests.differential.calls import Answer, Call, Side
from tests.differential.generator import Generator
from tests.differential.meant import meant, unasked


@dataclass
class Tally:
    """What a run was made of: a comparison that only ever compares errors proves little."""

    requests: int = 0
    answers: Counter[tuple[str, str]] = field(default_factory=Counter)
    """(method, error text or OK), by the oracle's answer."""
    meant: Counter[str] = field(default_factory=Counter)
    """How often each entry of the two tables applied."""

    def describe(self) -> str:
        lines = [f"{self.requests} requests"]
        lines += [f"{count:7} {method} {text}" for (method, text), count in sorted(self.answers.items())]
        lines += [f"{count:7} meant: {name}" for name, count in sorted(self.meant.items())]
        return "\n".join(lines)


@dataclass(frozen=True)
class Difference:
    """One request that the two sides do not answer alike."""

    number: int
    """Of the request in its run, from 0."""
    call: Call
    expected: Answer
    got: Answer

    def describe(self) -> str:
        return f"request {self.number}: {self.call}\noracle:  {self.expected}\nsubject: {self.got}"


class Comparison:
    """Takes two fresh stores through the same history; its tally goes on from run to run."""

    def __init__(self, *, subject_is_etcd: bool = False, serializable: bool = True) -> None:
        """`subject_is_etcd`: what the oracle must not be asked, the subject is not asked either.
        `serializable`: false for a subject of several members, whose serializable reads may be old."""
        self._subject_is_etcd = subject_is_etcd
        self._serializable = serializable
        self.tally = Tally()

    def generated(self, oracle: Side, subject: Side, seed: int, requests: int) -> Difference | None:
        """Run that many requests of a seed."""
        generator = Generator(seed, serializable=self._serializable)
        for number in range(requests):
            call = generator.next()
            expected, got = self._ask_both(oracle, subject, call)
            if not self._agree(call, expected, got):
                return Difference(number, call, expected, got)
            generator.observe(call, expected)
        return None

    def replayed(self, oracle: Side, subject: Side, calls: Iterable[Call]) -> Difference | None:
        """Run recorded requests."""
        for number, call in enumerate(calls):
            expected, got = self._ask_both(oracle, subject, call)
            if not self._agree(call, expected, got):
                return Difference(number, call, expected, got)
        return None

    def recorded(self, oracle: Side, seed: int, requests: int) -> Iterator[Call]:
        """The requests that `generated` makes, as the answers of this fresh store shape them."""
        generator = Generator(seed, serializable=self._serializable)
        for _ in range(requests):
            call = generator.next()
            rule = unasked(call.request)
            yield call
            generator.observe(call, oracle.ask(call) if rule is None else _refusal(rule.answer))

    def _ask_both(self, oracle: Side, subject: Side, call: Call) -> tuple[Answer, Answer]:
        """The oracle's answer, or what stands for it, and the subject's."""
        rule = unasked(call.request)
        if rule is None:
            to_oracle, to_subject = oracle.start(call), subject.start(call)
            return to_oracle.wait(), to_subject.wait()
        self.tally.meant[rule.name] += 1
        expected = _refusal(rule.answer)
        return expected, expected if self._subject_is_etcd else subject.ask(call)

    def _agree(self, call: Call, expected: Answer, got: Answer) -> bool:
        text = "OK" if expected.code == Code.OK else expected.message
        self.tally.requests += 1
        self.tally.answers[call.method, text] += 1
        if expected == got:
            return True
        explanation = meant(call.request, expected, got)
        if explanation is None:
            return False
        self.tally.meant[explanation.name] += 1
        return True


def _refusal(error: EtcdError) -> Answer:
    return Answer(error.code, error.message, None)
