"""`etcdctl watch` with every flag and `etcdctl make-mirror`, exact output."""

from __future__ import annotations

import json
from base64 import b64decode
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.cluster.background import Background, running, until
from tests.cluster.conftest import Target
from tests.etcd_tools import Etcdctl, Facts

COMPACTED = "etcdserver: mvcc: required revision has been compacted"


@pytest.fixture(autouse=True)
def empty(ctl: Etcdctl) -> Iterator[None]:
    """Every test starts without keys; revisions go on."""
    ctl.ok("del", "", "--from-key")
    yield
    ctl.ok("del", "", "--from-key")


def put(ctl: Etcdctl, *pairs: str) -> None:
    """Each pair is `key=value`."""
    for pair in pairs:
        ctl.ok("put", *pair.split("=", 1))


def puts(*pairs: str) -> str:
    """What a watch prints of these."""
    return "".join("PUT\n{}\n{}\n".format(*pair.split("=", 1)) for pair in pairs)


# --- watch ------------------------------------------------------------------------------------


def test_watch_shows_what_happens_from_now_on(ctl: Etcdctl, tmp_path: Path) -> None:
    put(ctl, "k=before")
    with running(ctl, tmp_path, "watch", "k") as watch:
        # Nothing says from outside when the watcher is there: write until it sees something.
        while not watch.output():
            put(ctl, "k=ready")
        put(ctl, "other=1", "ka=1", "k=last")
        ctl.ok("del", "k")
        watch.wait_for(lambda output: output.endswith("DELETE\nk\n\n"))
        seen = watch.output().replace(puts("k=ready"), "")
    assert seen == puts("k=last") + "DELETE\nk\n\n"
    assert "before" not in watch.output()


def test_watch_starts_at_a_revision_of_the_past(ctl: Etcdctl, facts: Facts, tmp_path: Path) -> None:
    put(ctl, "k=1", "k=2")
    with running(ctl, tmp_path, "watch", "k", f"--rev={facts.revision()}") as watch:
        watch.shows(puts("k=2"))
        put(ctl, "other=1", "k=3")
        watch.shows(puts("k=2", "k=3"))


def test_watch_starts_at_a_revision_of_the_future(ctl: Etcdctl, facts: Facts, tmp_path: Path) -> None:
    with running(ctl, tmp_path, "watch", "k", f"--rev={facts.revision() + 3}") as watch:
        put(ctl, "k=1", "k=2", "k=3")
        watch.shows(puts("k=3"))


def test_watch_takes_prefix_range_and_previous_pairs(ctl: Etcdctl, facts: Facts, tmp_path: Path) -> None:
    start = f"--rev={facts.revision() + 1}"
    with (
        running(ctl, tmp_path, "watch", "a", "--prefix", start) as prefix,
        running(ctl, tmp_path, "watch", "a", "b", start) as ranged,
        running(ctl, tmp_path, "watch", "ab", "\x7f", start) as after,
        running(ctl, tmp_path, "watch", "", "--prefix", start) as everything,
        running(ctl, tmp_path, "watch", "a", "--prefix", "--prev-kv", start) as previous,
    ):
        put(ctl, "a=1", "ab=2", "b=3", "a=4")
        ctl.ok("del", "a", "--prefix")
        deleted = "DELETE\na\n\nDELETE\nab\n\n"
        prefix.shows(puts("a=1", "ab=2", "a=4") + deleted)
        ranged.shows(puts("a=1", "ab=2", "a=4") + deleted)
        after.shows(puts("ab=2", "b=3") + "DELETE\nab\n\n")
        everything.shows(puts("a=1", "ab=2", "b=3", "a=4") + deleted)
        previous.shows(
            puts("a=1", "ab=2") + "PUT\na\n1\na\n4\n" + "DELETE\na\n4\na\n\n" + "DELETE\nab\n2\nab\n\n"
        )


def test_watch_prints_hex_and_json(ctl: Etcdctl, facts: Facts, tmp_path: Path) -> None:
    revision = facts.revision() + 1
    flags = ("watch", "k", "--prev-kv", f"--rev={revision}")
    with (
        running(ctl, tmp_path, *flags, "--hex") as as_hex,
        running(ctl, tmp_path, *flags, "-w", "json") as as_json,
    ):
        put(ctl, "k=1", "k=2")
        ctl.ok("del", "k")
        first, second = "\\x6b\n\\x31\n", "\\x6b\n\\x32\n"
        as_hex.shows(f"PUT\n{first}PUT\n{first}{second}DELETE\n{second}\\x6b\n\n")
        until(lambda: len(json_events(as_json)) == 3, as_json.output)
    created, changed, deleted = json_events(as_json)
    assert (b64decode(created["kv"]["value"]), created["kv"]["version"]) == (b"1", 1)
    assert "prev_kv" not in created
    assert b64decode(changed["kv"]["value"]) == b"2"
    assert changed["prev_kv"] == created["kv"]
    assert deleted == {"type": 1, "kv": deleted["kv"], "prev_kv": changed["kv"]}
    assert [event["kv"]["mod_revision"] for event in json_events(as_json)] == [
        revision,
        revision + 1,
        revision + 2,
    ]


def json_events(watch: Background) -> list[dict[str, Any]]:
    """The events of every whole line; lines can be empty of them."""
    whole = watch.output().rpartition("\n")[0]
    return [event for line in whole.splitlines() for event in json.loads(line)["Events"] or []]


def test_watch_delivers_a_transaction_whole(ctl: Etcdctl, facts: Facts, tmp_path: Path) -> None:
    with running(
        ctl, tmp_path, "watch", "", "--prefix", "-w", "json", f"--rev={facts.revision() + 1}"
    ) as watch:
        assert ctl.ok("txn", stdin="\nput b 1\nput a 2\ndel nothing\n\n\n").startswith("SUCCESS")
        until(lambda: len(json_events(watch)) == 2, watch.output)
    (line,) = [line for line in watch.lines() if json.loads(line)["Events"]]
    events = json.loads(line)["Events"]
    assert [b64decode(event["kv"]["key"]) for event in events] == [b"b", b"a"]
    assert {event["kv"]["mod_revision"] for event in events} == {facts.revision()}


def test_watch_of_a_compacted_revision_ends_with_the_reason(
    ctl: Etcdctl, facts: Facts, tmp_path: Path
) -> None:
    put(ctl, "k=1", "k=2", "k=3")
    revision = facts.revision()
    ctl.ok("compaction", str(revision))
    done = ctl.run("watch", "k", f"--rev={revision - 1}")
    assert (done.code, done.stdout) == (5, "")
    assert done.stderr.splitlines() == [
        f"watch was canceled ({COMPACTED})",
        "Error: watch is canceled by the server",
    ]
    with running(ctl, tmp_path, "watch", "k", f"--rev={revision}") as watch:
        watch.shows(puts("k=3"))


def test_watch_runs_a_command_for_every_event(ctl: Etcdctl, facts: Facts, tmp_path: Path) -> None:
    revision = facts.revision() + 1
    variables = ("REVISION", "EVENT_TYPE", "KEY", "VALUE")
    script = 'echo "' + " ".join(f"$ETCD_WATCH_{name}" for name in variables) + '"'
    command = ("watch", "k", f"--rev={revision}", "--", "sh", "-c", script)
    with running(ctl, tmp_path, *command) as watch:
        put(ctl, "k=1")
        watch.shows(f'{puts("k=1")}{revision} "PUT" "k" "1"\n')
        ctl.ok("del", "k")
        watch.shows(f'{puts("k=1")}{revision} "PUT" "k" "1"\nDELETE\nk\n\n{revision + 1} "DELETE" "k" ""\n')


def test_interactive_watch_takes_several_watches(ctl: Etcdctl, facts: Facts, tmp_path: Path) -> None:
    revision = facts.revision() + 1
    with running(ctl, tmp_path, "watch", "-i") as watch:
        watch.say(f"watch a --rev={revision}")
        put(ctl, "a=1", "x=1")
        watch.shows(puts("a=1"))
        watch.say(f"watch b --prefix --prev-kv --rev={revision}")
        put(ctl, "b1=1", "b1=2")
        shown = puts("a=1", "b1=1") + "PUT\nb1\n1\nb1\n2\n"
        watch.shows(shown)
        watch.say(f"watch c --rev={revision} -- echo ran")
        put(ctl, "c=1", "a=2")
        expected = sorted((shown + puts("c=1", "a=2") + "ran\n").splitlines())
        watch.wait_for(lambda output: sorted(output.splitlines()) == expected)


def test_interactive_watch_refuses_what_it_does_not_know(ctl: Etcdctl, tmp_path: Path) -> None:
    with running(ctl, tmp_path, "watch", "-i") as watch:
        watch.say("look k")
        until(lambda: "Invalid command look k" in watch.complaints(), watch.complaints)


def test_interactive_watch_asks_for_progress(ctl: Etcdctl, facts: Facts, tmp_path: Path) -> None:
    put(ctl, "k=1")
    revision = facts.revision()
    with running(ctl, tmp_path, "watch", "-i") as watch:
        watch.say(f"watch k --rev={revision}")
        watch.shows(puts("k=1"))
        until(lambda: progress(watch) == revision, watch.output)
    assert watch.output().startswith(puts("k=1"))


def progress(watch: Background) -> int:
    """Asks, too: etcd says nothing while the watcher is not in its synchronised group."""
    watch.say("progress")
    told = [line for line in watch.lines() if line.startswith("progress notify: ")]
    return int(told[-1].rpartition(" ")[2]) if told else 0


def test_watch_with_progress_notifications_shows_events(ctl: Etcdctl, facts: Facts, tmp_path: Path) -> None:
    if ctl.version.startswith("3.4"):
        pytest.skip("3.4's watch has no --progress-notify")
    with running(ctl, tmp_path, "watch", "k", "--progress-notify", f"--rev={facts.revision() + 1}") as watch:
        put(ctl, "k=1")
        # Periodic ones come every ten minutes; none is sent beside an event.
        watch.shows(puts("k=1"))


def test_watch_refuses_bad_arguments(ctl: Etcdctl) -> None:
    assert ctl.refused("watch") == (128, "Error: bad number of arguments")


# --- make-mirror ------------------------------------------------------------------------------


@pytest.fixture
def other(target: Target, request: pytest.FixtureRequest) -> Iterator[Etcdctl]:
    """The same etcdctl with the other cluster: etcray's with the real one, the real one with etcray's."""
    name = "cluster" if target.is_etcd else "etcd_cluster"
    endpoint = request.getfixturevalue(name).endpoints[0]
    ctl = Etcdctl(target.etcdctl.program, target.etcdctl.version, endpoint)
    ctl.ok("del", "", "--from-key")
    yield ctl
    ctl.ok("del", "", "--from-key")


def holds(ctl: Etcdctl, prefix: str, *pairs: str) -> None:
    """Wait until these, sorted, are all that there is."""
    expected = "".join("{}\n{}\n".format(*pair.split("=", 1)) for pair in pairs)
    until(
        lambda: ctl.ok("get", prefix, "--prefix") == expected,
        lambda: repr(ctl.ok("get", prefix, "--prefix")),
    )


@pytest.mark.cluster
def test_mirror_follows_another_cluster(ctl: Etcdctl, other: Etcdctl, tmp_path: Path) -> None:
    put(ctl, "a=1", "b=2")
    with running(ctl, tmp_path, "make-mirror", other.endpoint):
        holds(other, "", "a=1", "b=2")
        put(ctl, "c=3", "a=4")
        holds(other, "", "a=4", "b=2", "c=3")
        ctl.ok("txn", stdin="\nput d 5\ndel a\n\n\n")
        holds(other, "", "b=2", "c=3", "d=5")
        ctl.ok("del", "", "--from-key")
        holds(other, "")


@pytest.mark.cluster
@pytest.mark.parametrize(
    ("flags", "prefix"),
    [([], "app/"), (["--dest-prefix=copy/"], "copy/"), (["--no-dest-prefix"], "")],
    ids=["same", "other", "none"],
)
def test_mirror_moves_prefixes(
    ctl: Etcdctl, other: Etcdctl, tmp_path: Path, flags: list[str], prefix: str
) -> None:
    put(ctl, "app/a=1", "not/a=1")
    with running(ctl, tmp_path, "make-mirror", "--prefix=app/", *flags, other.endpoint):
        holds(other, "", f"{prefix}a=1")
        put(ctl, "not/b=2", "app/b=2")
        holds(other, "", f"{prefix}a=1", f"{prefix}b=2")
        ctl.ok("del", "app/a")
        holds(other, "", f"{prefix}b=2")


def test_mirror_copies_within_one_cluster(ctl: Etcdctl, tmp_path: Path) -> None:
    put(ctl, "from/a=1")
    with running(ctl, tmp_path, "make-mirror", "--prefix=from/", "--dest-prefix=to/", ctl.endpoint):
        holds(ctl, "to/", "to/a=1")
        for number in range(20):
            put(ctl, f"from/a={number}")
        holds(ctl, "to/", "to/a=19")
        ctl.ok("del", "from/a")
        holds(ctl, "to/")
