"""The asyncio client's locks and elections: `recipes`, driven by a task that waits. `blocking_lock` is the
twin, except that here the loss of a lock also cancels the task that is inside its block."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, Generator
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self, TypeVar

from etcray.client import calls, recipes
from etcray.client.asynchronous_lease import AsyncSession, Owner, leave_block
from etcray.client.asynchronous_watch import AsyncWatch
from etcray.client.errors import (
    EtcrayError,
    LeaseLostError,
    LockLostError,
    LockTimeoutError,
    NotLeaderError,
    WatchCancelledError,
)
from etcray.client.keeping import logger, lost_error
from etcray.client.recipes import Emit, Finished, NextBatch, OpenWatch, PlaceHolder, Recipe, Step
from etcray.client.results import KeyValue
from etcray.client.values import Data
from etcray_storage.errors import Code

if TYPE_CHECKING:
    from etcray.client.asynchronous import AsyncClient

ReturnT = TypeVar("ReturnT")


class _Driver:
    """Performs the steps of recipes. `stop`, from any thread, ends a wait with WatchCancelledError."""

    def __init__(self, client: AsyncClient, timeout: float | None = None) -> None:
        self._client = client
        self._deadline = None if timeout is None else time.monotonic() + timeout
        self._watch: AsyncWatch | None = None
        self._is_stopped = False

    async def run(self, recipe: Recipe[ReturnT]) -> ReturnT:
        """Raises LockTimeoutError when the time is up during a wait."""
        try:
            step = recipes.proceed(recipe)
            while not isinstance(step, Finished):
                step = await self.advance(recipe, step)
        finally:
            recipe.close()
        answer: ReturnT = step.value
        return answer

    async def advance(self, recipe: Generator[Any, Any, Any], step: Step | Emit) -> Step | Emit | Finished:
        """Perform this step; the recipe's next one."""
        try:
            outcome = await self._perform(step)
        except Exception as error:
            return recipes.proceed(recipe, error=error)
        return recipes.proceed(recipe, outcome)

    def stop(self) -> None:
        self._is_stopped = True
        if self._watch is not None:
            self._watch.cancel()

    async def _perform(self, step: Step | Emit) -> Any:
        match step:
            case calls.Call():
                return await self._client._call(step)
            case OpenWatch():
                self._watch = self._client.watch(step.key, None, **step.options)
                if self._is_stopped:
                    self._watch.cancel()
                return self._watch
            case NextBatch():
                assert isinstance(step.watch, AsyncWatch), f"{step.watch!r} is of another client"
                left = None if self._deadline is None else max(0.0, self._deadline - time.monotonic())
                batch = await step.watch.next_batch(left)
                if batch is None:
                    raise LockTimeoutError(Code.DEADLINE_EXCEEDED, "the lock did not become free in time")
                return batch
            case Emit():
                return None


async def _wait_in_queue(
    client: AsyncClient, session: AsyncSession, recipe: Recipe[ReturnT], timeout: float | None
) -> ReturnT:
    """Run a recipe that waits, as long as the session lives. Raises LeaseLostError when it does not."""
    driver = _Driver(client, timeout)
    session.lease.tell_when_lost(driver.stop)
    try:
        return await driver.run(recipe)
    except WatchCancelledError as error:
        if session.lost.is_set():
            raise lost_error(session.lease.id) from error
        raise
    finally:
        session.lease.do_not_tell(driver.stop)


class AsyncLock(PlaceHolder):
    """A lock that all clients of the store share, by its name. Use it in `async with`.

    It is held until it is released, or until its lease is lost: then `lost` is set, the task inside the
    `async with` block is cancelled, and the block ends with LockLostError, which `check` raises as well.
    A process that was away for long may learn of that too late; hand `fencing_token` to whatever the
    lock protects, and let it refuse smaller ones than it saw.

    Without a `session` each lock has a lease of its own. Two locks of one name and one session are the
    same lock. Not reentrant, and an instance is for one task at a time.
    """

    def __init__(
        self, client: AsyncClient, name: Data, ttl: int, timeout: float | None, session: AsyncSession | None
    ) -> None:
        super().__init__(name)
        self._client = client
        self._ttl = ttl
        self._timeout = timeout
        self._given = session
        self._session: AsyncSession | None = None
        self._owner: Owner | None = None

    async def acquire(self, timeout: float | None = None) -> bool:
        """True once it is held; False if it did not become free for `timeout` seconds, 0 for a try.

        Raises LeaseLostError if the lease is lost while waiting."""
        assert self._place is None, f"lock {self.name!r} is held already by this instance"
        session = self._given or await AsyncSession(self._client, self._ttl).open()
        try:
            recipe = recipes.acquire(self.name, session.lease.id, wait=timeout != 0)
            self._place = await _wait_in_queue(self._client, session, recipe, timeout)
        except LockTimeoutError:
            await self._give_up(session)
            return False
        except BaseException:
            await self._give_up(session)
            raise
        self._session = session
        if self._place is None:
            await self._give_up(session)
        return self._place is not None

    async def release(self) -> None:
        """Let the next one have it. No error if it was lost."""
        session, place = self._session, self._place
        assert session is not None, f"lock {self.name!r} is not held"
        assert place is not None, f"lock {self.name!r} is not held"
        self._place = None
        if self._given is None:
            await session.close()
        else:
            await self._client._call(recipes.leave(self.name, place.lease_id))

    async def _give_up(self, session: AsyncSession) -> None:
        """Leave the queue; whatever goes wrong with that, the lease ends it."""
        try:
            if self._given is None:
                await session.close()
            else:
                await self._client._call(recipes.leave(self.name, session.lease.id))
        except EtcrayError as error:
            logger.warning("lock %r: could not leave its queue: %s", self.name, error)

    @property
    def lost(self) -> asyncio.Event:
        """Set when the lease is lost."""
        assert self._session is not None, f"lock {self.name!r} is not held"
        return self._session.lost

    def check(self) -> None:
        """Raises LockLostError if the lease is lost, as far as this process can know."""
        assert self._session is not None, f"lock {self.name!r} is not held"
        try:
            self._session.check()
        except LeaseLostError as error:
            raise self._lost_error() from error

    def _lost_error(self) -> LockLostError:
        return LockLostError(Code.NOT_FOUND, f"lock {self.name!r} was lost with its lease")

    async def __aenter__(self) -> Self:
        if not await self.acquire(self._timeout):
            raise LockTimeoutError(
                Code.DEADLINE_EXCEEDED, f"lock {self.name!r} did not become free in {self._timeout} s"
            )
        assert self._session is not None, f"lock {self.name!r} is held without a session"
        self._owner = Owner(self._session.lease)
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        assert self._owner is not None, f"lock {self.name!r} was left, but not entered"
        owner, self._owner = self._owner, None
        if self._place is None:
            owner.release()
            return
        lost = self._lost_error() if self.lost.is_set() else None
        await leave_block(self.release, owner, lost, error)


class AsyncElection(PlaceHolder):
    """One leader among all who campaign under a name, as long as its lease lives.

    In `async with`, or with `close`: what was campaigned for is resigned. When the lease is lost, the
    task that campaigned inside the block is cancelled, and the block ends with LeaseLostError. Without a
    `session` it has a lease of its own from the first `campaign` on. Watching who leads (`leader`,
    `observe`) needs none.
    """

    def __init__(self, client: AsyncClient, name: Data, ttl: int, session: AsyncSession | None) -> None:
        super().__init__(name)
        self._client = client
        self._ttl = ttl
        self._given = session
        self._session = session
        self._is_in_block = False
        self._owner: Owner | None = None
        """The task that campaigned inside our `async with` block."""

    async def campaign(self, value: Data) -> None:
        """Returns when we lead, with this value; campaigning again changes it. Raises LeaseLostError."""
        if self._session is None:
            self._session = await AsyncSession(self._client, self._ttl).open()
        recipe = recipes.campaign(self.name, self._session.lease.id, value)
        try:
            self._place = await _wait_in_queue(self._client, self._session, recipe, None)
        except BaseException:
            await self._give_up(self._session)
            raise
        if self._is_in_block and self._owner is None:
            self._owner = Owner(self._session.lease)

    async def proclaim(self, value: Data) -> None:
        """Lead with another value. Raises NotLeaderError if we do not lead any more."""
        if self._place is None:
            raise NotLeaderError(Code.FAILED_PRECONDITION, "election: not leader")
        await _Driver(self._client).run(recipes.proclaim(self._place, value))

    async def resign(self) -> None:
        """Let the next one lead. No error if we do not lead."""
        if self._place is not None:
            place, self._place = self._place, None
            await self._client._call(recipes.resign(place))

    async def leader(self) -> KeyValue | None:
        """The leader's key and value, or None if nobody leads."""
        return calls.first(await self._client._call(recipes.leader(self.name)))

    async def observe(self) -> AsyncGenerator[KeyValue, None]:
        """The leader, each new value, each next leader; waits in between. Ends when it is closed."""
        driver, recipe = _Driver(self._client), recipes.observe(self.name)
        try:
            step = recipes.proceed(recipe)
            while not isinstance(step, Finished):
                if isinstance(step, Emit):
                    yield step.leader
                step = await driver.advance(recipe, step)
        finally:
            recipe.close()

    @property
    def lost(self) -> asyncio.Event:
        """Set when the lease is lost."""
        assert self._session is not None, f"nobody campaigned for {self.name!r} here"
        return self._session.lost

    async def close(self) -> None:
        """Resign, and end the lease if it is our own."""
        await self.resign()
        if self._given is None and self._session is not None:
            session, self._session = self._session, None
            await session.close()

    async def _give_up(self, session: AsyncSession) -> None:
        try:
            await self._client._call(recipes.leave(self.name, session.lease.id))
        except EtcrayError as error:
            logger.warning("election %r: could not leave its queue: %s", self.name, error)

    async def __aenter__(self) -> Self:
        self._is_in_block = True
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        lost = None
        if self._session is not None and self._session.lost.is_set():
            lost = LeaseLostError(Code.NOT_FOUND, f"election {self.name!r}: the lease was lost")
        owner, self._owner, self._is_in_block = self._owner, None, False
        await leave_block(self.close, owner, lost, error)
