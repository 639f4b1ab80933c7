"""The simulated operating system: its locks lock, its time-outs end, its crashes lose what was not synced."""

from __future__ import annotations

import pytest

from etcray_storage.errors import StorageFatalError
from tests.simulation.disk import Disk
from tests.simulation.network import Network
from tests.simulation.primitives import Condition, Event, Lock, Os, SimpleQueue, the
from tests.simulation.scheduler import Process, World


def make_world(seed: int, preemption_mean: int = 10**9) -> World:
    the.world = World(seed, preemption_mean)
    return the.world


@pytest.mark.parametrize("seed", range(5))
def test_a_lock_is_held_by_one_task_although_all_are_preempted(seed: int) -> None:
    world = make_world(seed, preemption_mean=2)
    process = Process(world, "p")
    lock, inside, rounds = Lock(), [0], [0]

    def work() -> None:
        for _ in range(20):
            with lock:
                inside[0] += 1
                assert inside[0] == 1, "two tasks are inside"
                world.sleep(world.rng.random() * 0.01)
                inside[0] -= 1
                rounds[0] += 1

    for number in range(4):
        process.spawn(work, f"t{number}")
    world.run(until=10.0)
    assert rounds[0] == 80


def test_a_timeout_is_in_seconds_of_the_processs_own_clock() -> None:
    world = make_world(1)
    process = Process(world, "p", clock_rate=2.0)
    ended: list[tuple[bool, float]] = []
    process.spawn(lambda: ended.append((Event().wait(3.0), world.now)), "t")
    world.run(until=10.0)
    assert ended == [(False, 1.5)]


def test_a_notified_waiter_goes_on_and_a_forgotten_one_times_out() -> None:
    world = make_world(2)
    process = Process(world, "p")
    condition, woken = Condition(), list[bool]()

    def wait() -> None:
        with condition:
            woken.append(condition.wait(1.0))

    process.spawn(wait, "one")
    process.spawn(wait, "two")

    def notify() -> None:
        world.sleep(0.5)
        with condition:
            condition.notify()

    process.spawn(notify, "notifier")
    world.run(until=5.0)
    assert sorted(woken) == [False, True]


def test_an_exit_ends_all_tasks_of_the_process_and_no_other() -> None:
    world = make_world(3)
    one, other = Process(world, "one"), Process(world, "other")
    queue, ended = SimpleQueue(), list[str]()
    one.on_end = lambda process: ended.append(process.name)
    one.spawn(lambda: ended.append(str(queue.get())), "waits for ever")

    def end() -> None:
        world.sleep(1.0)
        Os._exit(70)

    def live() -> None:
        world.sleep(2.0)
        ended.append("goes on")

    one.spawn(end, "ends it")
    other.spawn(live, "lives")
    world.run(until=5.0)
    assert ended == ["one", "goes on"]


def test_an_exception_in_a_task_stops_the_simulation() -> None:
    world = make_world(4)

    def fail() -> None:
        raise ValueError("of the product")

    Process(world, "p").spawn(fail, "t")
    with pytest.raises(ValueError, match="of the product"):
        world.run(until=1.0)


@pytest.mark.parametrize("seed", range(10))
def test_a_waiter_that_is_woken_behind_its_timeout_is_not_woken_twice(seed: int) -> None:
    """Both tasks are due when the process goes on; if the one that sets comes first, the other one's wait
    is over already, and its next wait is none of the setter's business."""
    world = make_world(seed)
    process = Process(world, "p")
    event, ended = Event(), list[float]()

    def wait() -> None:
        event.wait(1.0)
        Event().wait(3.0)
        ended.append(world.now)

    def set_it() -> None:
        world.sleep(1.0)
        event.set()

    process.spawn(wait, "waiter")
    process.spawn(set_it, "setter")
    world.after(0.5, process.pause)
    world.after(2.0, process.resume)
    world.run(until=10.0)
    assert ended == [5.0]


def test_a_paused_process_does_nothing_until_it_is_resumed() -> None:
    world = make_world(5)
    process = Process(world, "p")
    steps: list[float] = []

    def step() -> None:
        for _ in range(3):
            world.sleep(0.1)
            steps.append(world.now)

    process.spawn(step, "t")
    process.pause()
    world.after(5.0, process.resume)
    world.run(until=10.0)
    assert steps[0] == 5.1
    assert len(steps) == 3


def test_a_crash_keeps_every_finished_write_and_decides_about_the_one_under_way() -> None:
    outcomes = set()
    for seed in range(20):
        world = make_world(seed)
        process = Process(world, "p")
        disk, stored = Disk("d"), list[int]()
        disk.holder = process

        def write(disk: Disk = disk, stored: list[int] = stored) -> None:
            disk.write(lambda: stored.append(1))
            disk.write_seconds = 10.0
            disk.write(lambda: stored.append(2))

        process.spawn(write, "t")
        world.after(1.0, process.exit)
        world.run(until=2.0)
        disk.settle()
        outcomes.add(tuple(stored))
    assert outcomes == {(1,), (1, 2)}


def test_a_process_that_lost_its_directory_cannot_write() -> None:
    world = make_world(6)
    process = Process(world, "p")
    disk, failures = Disk("d"), list[str]()
    disk.holder = process

    def write() -> None:
        world.sleep(1.0)
        try:
            disk.write(lambda: None)
        except StorageFatalError as error:
            failures.append(str(error))

    process.spawn(write, "t")
    world.after(0.5, disk.take_over)
    world.run(until=5.0)
    assert failures == ["d was taken over by another process"]


def test_what_is_blocked_is_lost_and_what_is_clogged_comes_later() -> None:
    world = make_world(7)
    network = Network(world)
    arrived: list[tuple[str, float]] = []
    network.blocked.add(("a", "b"))
    network.clog("b", "a")
    network.send("a", "b", lambda: arrived.append(("lost", world.now)))
    network.send("b", "a", lambda: arrived.append(("late", world.now)))
    network.send("a", "c", lambda: arrived.append(("at once", world.now)))
    world.after(3.0, lambda: network.unclog("b", "a"))
    world.run(until=10.0)
    assert [what for what, _ in arrived] == ["at once", "late"]
    assert arrived[0][1] < 0.1
    assert arrived[1][1] > 3.0
