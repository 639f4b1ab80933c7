"""The supervisor as a Ray actor: one thread that keeps, and the calls that ask it for something."""

from __future__ import annotations

import os
import threading
import time
import traceback
from pathlib import Path
from typing import Final

from etcray.spec import cluster_directory, decode_spec
from etcray.status import ClusterStatus, encode_status
from etcray.supervisor.book import Book
from etcray.supervisor.goals import decode_goal
from etcray.supervisor.keeper import Keeper
from etcray.supervisor.membership import Membership, Wish
from etcray.supervisor.report import make_report
from etcray.supervisor.watched import (
    ActorFactory,
    Watched,
    WatchedGateway,
    WatchedHistory,
    WatchedMember,
    watched_of,
)

EXIT_DEFECT: Final = 70
NOTE_NAME: Final = "supervisor.log"


class Supervisor:
    """Its calls run in other threads than its loop and only touch what is locked."""

    def __init__(
        self,
        spec: bytes,
        member_class: ActorFactory,
        gateway_class: ActorFactory,
        history_class: ActorFactory,
    ) -> None:
        self._book = Book(decode_spec(spec))
        self._book.find_newest()
        self._keeper = Keeper(
            watched_of(self._book.spec),
            {
                WatchedMember: member_class,
                WatchedGateway: gateway_class,
                WatchedHistory: history_class,
            },
            lambda: self._book.spec,
            lambda news: self._membership.hear(news),
        )
        self._membership = Membership(self._keeper, self._book)
        self._stopping = threading.Event()
        self._stop_lock = threading.Lock()
        self._report = self._make_report()
        self._thread = threading.Thread(target=self._run, name="supervision", daemon=True)
        self._thread.start()

    # --- calls --------------------------------------------------------------------------------

    def status(self) -> bytes:
        """The encoded ClusterStatus."""
        return encode_status(self._report)

    def reach(self, goal: bytes, seconds: float) -> str:
        """Bring a goal about, and wait for it. Empty once it is reached; otherwise why not, or why not yet
        when the time is over. Asking again for the same goal is harmless."""
        wish = Wish(decode_goal(goal))
        self._membership.add_wish(wish)
        if wish.ended.wait(seconds):
            return wish.refusal
        self._membership.give_up(wish)
        return f"not within {seconds:.0f} s: {self._membership.described or 'no reason is known'}"

    def stop(self) -> None:
        """Stop gateways and history, then members, each cleanly, and end their processes. Idempotent. The
        supervisor does nothing any more then, and is for the caller to kill."""
        with self._stop_lock:
            self._stopping.set()
            self._keeper.wake()
            self._thread.join()
            watched = list(self._keeper.watched.values())
            self._keeper.stop([one for one in watched if not isinstance(one, WatchedMember)])
            members: list[Watched] = [one for one in watched if isinstance(one, WatchedMember)]
            self._keeper.stop(members)

    # --- the loop -----------------------------------------------------------------------------

    def _run(self) -> None:
        try:
            self._keeper.find_living()
            while not self._stopping.is_set():
                self._keeper.turn()
                self._membership.turn()
                self._report = self._make_report()
                self._keeper.wait()
        except BaseException:
            # Ray restarts the supervisor, which finds everything as it is. Going on with state
            # that broke an assertion would be worse, and a silent thread death the worst.
            self._leave_note(traceback.format_exc())
            os._exit(EXIT_DEFECT)

    def _make_report(self) -> ClusterStatus:
        membership = self._membership
        return make_report(self._keeper, self._book.spec, membership.described, membership.next_name)

    def _leave_note(self, text: str) -> None:
        """Where a person looks for it: Ray's own log files go away with its session."""
        directory = Path(cluster_directory(self._book.spec))
        if directory.is_dir():
            with (directory / NOTE_NAME).open("a") as file:
                file.write(f"{time.strftime('%Y-%m-%d %H:%M:%S')} supervisor {os.getpid()} ends\n{text}\n")
