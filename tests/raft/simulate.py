"""A random schedule of everything that can go wrong, from one seed; then healing, then progress.

    python -m tests.raft.simulate 17             # run one seed again, with its story
    python -m tests.raft.simulate 0 20000        # run many

Messages are lost, doubled, reordered and cut off; members crash with half of their writes done, and
come back; clocks run at different rates; logs are compacted, so that snapshots are needed; transfers
fail; entries wait to be applied. Members are added, promoted and removed, the leader too, and
leadership is handed over. After every step the members' invariants and the properties of `checker`
hold. In the end everything is healed, and the cluster must elect a leader, commit on all members and hand
leadership over.
"""

from __future__ import annotations

import random
import sys
from collections import Counter
from collections.abc import Callable

from etcray.raft.describe import describe_status
from etcray.raft.errors import NotLeaderError, ProposalDroppedError, TransferRefusedError
from etcray.raft.ready import Ready
from etcray_storage.types import NOBODY, Index, MemberId

from .checker import SafetyChecker
from .cluster import ELECTION_S, HEARTBEAT_S, Cluster, Member

NETWORK_MESSAGES_MAX = 60
MEMBERS_MAX = 6
"""At one time; over a whole schedule there may be twice as many."""
SHAPES = (
    ((1, 2, 3), ()),
    ((1, 2, 3), ()),
    ((1, 2, 3, 4, 5), ()),
    ((1, 2, 3), (4,)),
    ((1, 2), ()),
    ((1,), (2,)),
)


class Simulation:
    def __init__(self, seed: int) -> None:
        self.rng = rng = random.Random(seed)
        voters, learners = SHAPES[rng.randrange(len(SHAPES))]
        self.cluster = Cluster(
            voters,
            learners,
            seed=seed,
            append_bytes_max=rng.choice((10, 40, 1000)),
            appends_in_flight_max=rng.choice((1, 3, 8)),
            apply_bytes_max=rng.choice((10, 1000)),
            uncommitted_bytes_max=rng.choice((60, 1000)),
            log_cache_bytes=rng.choice((200, 2000, 100_000)),
        )
        self.checker = SafetyChecker(self.cluster)
        self.counts: Counter[str] = Counter()
        self.applies_slowly = rng.random() < 0.5
        for member in self.cluster.members.values():
            self.set_up(member)
        self.stopped: set[MemberId] = set()
        """Removed, and never started again."""
        self.proposed = 0
        change = rng.choice((0, 0, 2, 6, 15))
        loss = rng.choice((0, 2, 10))
        self.actions: dict[Callable[[], None], int] = {
            self.deliver_random: 30,
            self.deliver_oldest: 60,
            self.duplicate: rng.choice((0, 3, 10)),
            self.lose: loss,
            self.sync: 50,
            self.pass_time: 20,
            self.propose: 12,
            self.read: 6,
            self.crash: rng.choice((0, 1, 3)),
            self.blink: rng.choice((0, 2, 8)),
            self.restart: 4,
            self.cut: rng.choice((0, 1, 2)),
            self.mend: 2,
            self.suspect: rng.choice((0, 1)),
            self.compact: rng.choice((0, 2, 5)),
            self.finish_snapshot: 10,
            self.hasten_election: rng.choice((0, 1, 4, 8)),
            self.apply: 40 if self.applies_slowly else 0,
            self.change: change,
            self.join: 15 if change else 0,
            self.stop_removed: rng.choice((0, 1)) if change else 0,
            self.transfer_leadership: rng.choice((0, 0, 2, 6)),
        }
        if rng.random() < 0.2:
            # An election storm: several candidates a term, and disks that forget at the worst moment.
            self.actions |= {self.hasten_election: 20, self.blink: 20, self.sync: 30, self.pass_time: 2}
            self.actions |= {
                self.lose: 0,
                self.crash: 0,
                self.cut: 0,
                self.propose: 2,
                self.deliver_random: 120,
            }

        if rng.random() < 0.2:
            # Membership changes as fast as it can, while leaders come and go.
            self.actions |= {self.change: 40, self.join: 40, self.lose: 0, self.cut: 0}
            self.actions |= {self.crash: 1, self.blink: rng.choice((0, 4)), self.deliver_oldest: 150}
            self.actions |= {self.hasten_election: rng.choice((0, 2, 8)), self.sync: 100}

    def set_up(self, member: Member) -> None:
        member.clock_rate = self.rng.choice((0.7, 1.0, 1.0, 1.3))
        member._observe = self.observe
        member.applies_by_itself = not self.applies_slowly

    def observe(self, member: Member, ready: Ready) -> None:
        self.cluster.observe(member, ready)
        self.checker.observe(member, ready)

    def run(self, steps: int) -> None:
        actions, weights = list(self.actions), list(self.actions.values())
        for action in self.rng.choices(actions, weights, k=steps):
            action()
        self.checker.check_durable()
        self.heal_and_progress()

    # --- what can happen ------------------------------------------------------------------

    def running(self) -> Member | None:
        members = [member for member in self.cluster.members.values() if member.running]
        return self.rng.choice(members) if members else None

    def deliver_random(self) -> None:
        if self.cluster.network:
            position = self.rng.randrange(len(self.cluster.network))
            self.cluster.arrive(self.cluster.network.pop(position))

    def deliver_oldest(self) -> None:
        if self.cluster.network:
            self.cluster.arrive(self.cluster.network.pop(0))

    def duplicate(self) -> None:
        if 0 < len(self.cluster.network) < NETWORK_MESSAGES_MAX:
            self.cluster.network.append(self.rng.choice(self.cluster.network))

    def lose(self) -> None:
        if self.cluster.network:
            self.cluster.network.pop(self.rng.randrange(len(self.cluster.network)))

    def sync(self) -> None:
        if (member := self.running()) is not None and member.writes:
            member.sync(self.cluster.clock(member), self.rng.randint(1, len(member.writes)))

    def pass_time(self) -> None:
        self.cluster.now += self.rng.uniform(0, HEARTBEAT_S) * self.rng.choice((0.2, 1, 1, 4))
        self.cluster.tick_due()

    def hasten_election(self) -> None:
        """A member whose time-out runs out long before it should: a stopped or confused clock."""
        for member in self.cluster.members.values():
            if member.running and member.raft.state.leading is None and self.rng.random() < 0.5:
                member.raft.state.leader = NOBODY
                member.raft.state.election_deadline = self.cluster.clock(member)
        self.cluster.tick_due()

    def propose(self) -> None:
        for leader in self.cluster.leaders():
            self.proposed += 1
            try:
                self.cluster.propose(leader.id, b"%d" % self.proposed * self.rng.choice((1, 1, 5)))
            except ProposalDroppedError as e:
                self.counts[f"dropped for {e.reason}"] += 1
            except NotLeaderError:
                self.counts["proposed to a removed leader"] += 1

    def change(self) -> None:
        """Any change to any membership that a leader has; most often one that makes sense."""
        for leader in self.cluster.leaders():
            voters, learners = leader.membership.voters, leader.membership.learners
            fresh = max(self.cluster.members) + 1
            choices = [f"remove {self.rng.choice(voters + learners)}"]
            if len(voters + learners) < MEMBERS_MAX and len(self.cluster.members) < 2 * MEMBERS_MAX:
                choices += [f"voter {fresh}", f"learner {fresh}"]
            choices += [f"promote {learner}" for learner in learners]
            if self.rng.random() < 0.1:
                choices = [f"remove {leader.id}"]
            try:
                self.cluster.change(leader.id, self.rng.choice(choices))
                self.counts["change"] += 1
            except ProposalDroppedError as e:
                self.counts[f"change dropped for {e.reason}"] += 1
            except NotLeaderError:
                self.counts["change proposed to a removed leader"] += 1

    def join(self) -> None:
        """Start members that were added. All that they know is the founders."""
        membership = self.checker.membership
        for member in membership.voters + membership.learners:
            if member not in self.cluster.members:
                self.set_up(self.cluster.join(member))

    def stop_removed(self) -> None:
        """Whoever is removed is stopped for good once a majority of those that remain will not forget
        it. Before that its vote may be needed."""
        membership = self.checker.membership
        since = self.checker.memberships[-1][0]
        knowing = [
            voter
            for voter in membership.voters
            if voter in self.cluster.members
            and max(self.cluster[voter].disk.hard_state.commit, self.cluster[voter].disk.base_index) >= since
        ]
        if 2 * len(knowing) <= len(membership.voters):
            return
        for member in self.cluster.members.values():
            if member.id not in membership.voters + membership.learners + tuple(self.stopped):
                self.counts["stopped"] += 1
                self.stopped.add(member.id)
                if member.running:
                    member.crash(self.rng.randint(0, len(member.writes)))

    def transfer_leadership(self) -> None:
        for leader in self.cluster.leaders():
            try:
                self.cluster.transfer_leadership(leader.id, self.rng.choice(sorted(self.cluster.members)))
                self.counts["transfer"] += 1
            except TransferRefusedError:
                self.counts["transfer refused"] += 1
            except NotLeaderError:
                self.counts["transfer by a removed leader"] += 1

    def apply(self) -> None:
        if (member := self.running()) is not None and member.unapplied:
            member.apply(self.rng.randint(1, len(member.unapplied)))
            self.checker.check_membership(member)

    def read(self) -> None:
        for leader in self.cluster.leaders():
            try:
                token = leader.raft.read_index(self.cluster.clock(leader))
            except NotLeaderError:
                continue
            self.checker.begin_read(leader, token)
            if self.rng.random() < 0.7:
                leader.perform()

    def crash(self) -> None:
        if (member := self.running()) is not None:
            self.counts["crash"] += 1
            member.flush(Index(self.rng.randint(member.disk.flushed, member.applied_index)))
            member.crash(self.rng.randint(0, len(member.writes)))

    def blink(self) -> None:
        """A member with writes on their way loses them, and is back before anybody notices."""
        unsynced = [member for member in self.cluster.members.values() if member.running and member.writes]
        if unsynced:
            self.counts["blink"] += 1
            member = self.rng.choice(unsynced)
            member.crash()
            self.cluster.restart(member.id)

    def restart(self) -> None:
        for member in self.cluster.members.values():
            if not member.running and member.id not in self.stopped and self.rng.random() < 0.5:
                self.cluster.restart(member.id)

    def cut(self) -> None:
        if len(self.cluster.members) < 2:
            return
        one, *others = self.rng.sample(sorted(self.cluster.members), len(self.cluster.members))
        for other in others[: self.rng.randint(1, len(others))]:
            self.cluster.cut(one, other)

    def mend(self) -> None:
        self.cluster.cuts.clear()

    def suspect(self) -> None:
        if (member := self.running()) is not None:
            self.cluster.suspect(member.id, self.rng.choice(sorted(self.cluster.members)))

    def compact(self) -> None:
        if (member := self.running()) is not None and member.raft.state.installing is None:
            member.flush(Index(self.rng.randint(member.disk.flushed, member.applied_index)))
            member.compact(Index(self.rng.randint(member.disk.base_index, member.disk.flushed)))

    def finish_snapshot(self) -> None:
        for member in self.cluster.members.values():
            if member.running and member.snapshots_wanted:
                self.counts["snapshot"] += 1
                self.cluster.transfer_snapshot(member.id, ok=self.rng.random() < 0.7)

    # --- liveness -------------------------------------------------------------------------

    def heal_and_progress(self) -> None:
        cluster = self.cluster
        cluster.cuts.clear()
        for member in cluster.members.values():
            member.applies_by_itself = True
            if not member.running and member.id not in self.stopped:
                cluster.restart(member.id)
            if member.running:
                member.apply(len(member.unapplied))
        self.applies_slowly = False
        for _ in range(40):
            self.wait()
            if cluster.leaders() and self.is_level():
                break
        leader = self.only_leader()
        token = leader.raft.read_index(cluster.clock(leader))
        self.checker.begin_read(leader, token)
        index = cluster.propose(leader.id, b"healed")
        for _ in range(10):
            self.wait()
        for member in self.current_members():
            applied = member.applied_index
            assert applied == index, f"{member.id} applied {applied} after healing, {index} is committed"
            self.checker.check_membership(member)
        assert any(one == token for one, _ in leader.answered), "a read is never answered"
        self.hand_over()
        self.checker.check_durable()

    def hand_over(self) -> None:
        leader = self.only_leader()
        others = [voter for voter in leader.membership.voters if voter != leader.id]
        if not others:
            return
        successor = self.rng.choice(others)
        self.cluster.transfer_leadership(leader.id, successor)
        self.cluster.settle()
        now = self.only_leader()
        assert now.id == successor, f"{leader.id} handed over to {successor}, but {now.id} leads"

    def only_leader(self) -> Member:
        leaders = self.cluster.leaders()
        assert len(leaders) == 1, f"{len(leaders)} leaders after healing"
        return leaders[0]

    def wait(self) -> None:
        self.cluster.wait(ELECTION_S / 2)
        self.finish_all_snapshots()
        self.join()

    def current_members(self) -> list[Member]:
        membership = self.checker.membership
        return [self.cluster.members[one] for one in membership.voters + membership.learners]

    def finish_all_snapshots(self) -> None:
        for member in self.cluster.members.values():
            while member.running and member.snapshots_wanted:
                self.cluster.transfer_snapshot(member.id)

    def is_level(self) -> bool:
        return len({member.applied_index for member in self.current_members()}) == 1


def run_seed(seed: int, steps: int = 1000) -> Simulation:
    """Run one seed. What goes wrong comes with the seed and the last events."""
    simulation = Simulation(seed)
    try:
        simulation.run(steps)
    except Exception as e:
        story = "\n".join(simulation.cluster.events[-60:])
        members = "\n".join(
            describe_status(member.raft.status()) for member in simulation.cluster.members.values()
        )
        e.add_note(f"{story}\n{members}\nrun again: python -m tests.raft.simulate {seed}")
        raise
    return simulation


def main() -> None:
    first = int(sys.argv[1])
    if len(sys.argv) == 2:
        simulation = run_seed(first)
        print("\n".join(simulation.cluster.events))
        return
    totals: Counter[str] = Counter()
    for seed in range(first, int(sys.argv[2])):
        simulation = run_seed(seed)
        totals.update(simulation.counts)
        totals.update(
            committed=len(simulation.checker.committed) - 1,
            reads=simulation.checker.reads_answered,
            changes_applied=len(simulation.checker.memberships) - 1,
        )
    print(f"{int(sys.argv[2]) - first} seeds passed: {dict(totals)}")


if __name__ == "__main__":
    main()
