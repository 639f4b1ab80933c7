"""Members that talk by streams: what they do by way of Ray calls, they do here."""

from __future__ import annotations

import os
import socket
import stat
import threading
from contextlib import closing
from pathlib import Path

import msgspec
import pytest

from etcray.node import api
from etcray.transport.addresses import UnreachableError, dial, listen_unix, socket_path
from etcray.transport.frames import Kind, header
from etcray.transport.handshake import Credentials, credentials_of
from etcray_storage.commands import encode_batch
from etcray_storage.errors import DataDirectoryError
from etcray_storage.types import ClusterId, MemberId
from tests.node.local_cluster import LocalCluster, put_batch, range_request, value_of, wait_for
from tests.node.member_process import MemberProcess

from .stream_cluster import StreamCluster, address_of, calls_of, make_direct_spec


def test_what_is_put_reaches_all_members_and_survives_a_restart_of_each(tmp_path: Path) -> None:
    with StreamCluster(tmp_path) as cluster:
        cluster.open_session(1)
        members = list(cluster.board.members)
        for number, member in enumerate(members, start=1):
            cluster.put(1, number, b"key", b"%d" % number)
            cluster.stop(member)
            cluster.put(1, number + 10, b"other", b"%d" % number)
            cluster.start(member)
        assert cluster.wait_until_equal() == {b"key": b"3", b"other": b"3"}
        assert cluster.get(b"key") == b"3"


def test_a_member_is_added_promoted_and_removed(tmp_path: Path) -> None:
    """The removed one is told so, by streams of members that do not listen to it any more."""
    with StreamCluster(tmp_path) as cluster:
        cluster.open_session(1)
        cluster.put(1, 1, b"key", b"value")
        added = cluster.grow("m4")
        assert cluster.wait_until_equal() == {b"key": b"value"}
        gone = cluster.leader().spec.id
        assert cluster.remove(gone) == 0
        cluster.wait_until_removed(gone)
        cluster.stop(gone)
        cluster.put(1, 2, b"key", b"again")
        assert cluster.board.members[added].status().role in ("leader", "follower")
        assert cluster.wait_until_equal() == {b"key": b"again"}


def test_a_member_that_was_removed_while_it_was_away_is_told_when_it_comes_back(tmp_path: Path) -> None:
    with StreamCluster(tmp_path) as cluster:
        cluster.open_session(1)
        gone = next(m for m in cluster.board.members if m != cluster.leader().spec.id)
        cluster.stop(gone)
        assert cluster.remove(gone) == 0
        cluster.start(gone)
        wait_for(lambda: cluster.board.members[gone].status().removed or None, "word of its removal")


def test_a_member_that_lags_far_behind_gets_a_snapshot(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("etcray.node.opened.LOG_CATCH_UP_ENTRIES", 5)
    with StreamCluster(tmp_path) as cluster:
        cluster.open_session(1)
        lagging = next(m for m in cluster.board.members if m != cluster.leader().spec.id)
        cluster.stop(lagging)
        for number in range(1, 31):
            cluster.put(1, number, b"%d" % (number % 7), bytes(100_000))
        leader = cluster.leader().spec.id
        wait_for(lambda: _log_base(cluster, leader) > 20 or None, "a log that has forgotten")
        cluster.start(lagging)
        assert len(cluster.wait_until_equal()) == 7
        wait_for(lambda: _log_base(cluster, lagging) > 20 or None, "a log that begins behind the snapshot")


def _log_base(cluster: LocalCluster, member: MemberId) -> int:
    opened = cluster.board.members[member]._opened
    assert opened is not None
    return opened.log.base_index


def test_the_calls_of_gateways_and_the_history_are_answered(tmp_path: Path) -> None:
    with StreamCluster(tmp_path, nodes=1) as cluster:
        cluster.leader()
        (member,) = cluster.board.members
        with closing(calls_of(cluster.spec, member)) as calls:
            assert api.decode_status(calls.call(Kind.STATUS, b"", 5)).member == member
            cluster.open_session(1)
            batch = encode_batch(put_batch(1, 1, {b"key": b"value"}))
            reply = api.decode_propose_reply(calls.call(Kind.PROPOSE, batch, 5))
            assert reply.outcome is api.Outcome.ANSWERED
            for linearizable in (False, True):
                read = calls.call(Kind.READ, range_request(b"key", linearizable=linearizable), 5)
                assert value_of(api.decode_read_reply(read)) == b"value"
            poll = api.encode(api.WatchPoll(2, False, 1_000, 5.0))
            found: list[bytes] = []
            watching = threading.Thread(target=lambda: found.append(calls.call(Kind.WATCH, poll, 10)))
            watching.start()
            cluster.put(1, 2, b"key", b"newer")
            watching.join()
            events = api.decode_watch_events(found[0])
            assert (events.revision, events.keys) == (3, [b"key"])
            rows = api.encode(api.HistoryRowsRequest(1, 1 << 20, 0.0))
            answer = api.decode_history_rows_reply(calls.call(Kind.HISTORY_ROWS, rows, 5))
            assert (answer.outcome, answer.revision) == (api.Outcome.ANSWERED, 3)


def test_a_call_that_makes_no_sense_fails_and_harms_nobody(tmp_path: Path) -> None:
    with StreamCluster(tmp_path, nodes=1) as cluster:
        cluster.leader()
        (member,) = cluster.board.members
        with closing(calls_of(cluster.spec, member)) as calls:
            for kind in (Kind.PROPOSE, Kind.READ, Kind.WATCH):
                with pytest.raises(UnreachableError, match=r"Decode|Validation"):
                    calls.call(kind, b"\xc1", 5)
            with pytest.raises(UnreachableError, match=r"closed|reset"):  # a kind that is no call
                calls.call(Kind.WELCOME, b"", 5)
            with pytest.raises(UnreachableError, match=r"closed|reset"):  # messages that are none
                calls.call(Kind.MESSAGES, b"\xc1", 5)
            assert api.decode_status(calls.call(Kind.STATUS, b"", 5)).role == "leader"


# --- who is let in ----------------------------------------------------------------------------


def test_strangers_and_whoever_means_somebody_else_are_refused(tmp_path: Path) -> None:
    with StreamCluster(tmp_path, nodes=1) as cluster:
        cluster.leader()
        (member,) = cluster.board.members
        address = address_of(cluster.spec, member)
        ours = credentials_of(cluster.spec)
        for credentials, meant in (
            (Credentials(ours.cluster, bytes(32)), member),
            (Credentials(ClusterId(5), ours.key), member),
            (ours, MemberId(12345)),
        ):
            with pytest.raises(UnreachableError):
                dial(address, credentials, meant, "member")
        dial(address, ours, member, "member").close()


def test_whoever_says_nothing_or_nonsense_is_cut_off(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("etcray.transport.server.STREAM_HANDSHAKE_SECONDS", 0.2)
    with StreamCluster(tmp_path, nodes=1) as cluster:
        (member,) = cluster.board.members
        path = address_of(cluster.spec, member).unix_path
        for said in (
            b"",
            b"GET / HTTP/1.1\r\n\r\n",
            header(Kind.PROOF, 0, 1 << 30),
            header(Kind.STATUS, 1, 0),
        ):
            with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as stranger:
                stranger.settimeout(30.0)
                stranger.connect(path)
                stranger.sendall(said)
                heard = b""
                while data := _receive(stranger):
                    heard += data
            assert heard.startswith(header(Kind.CHALLENGE, 0, 48))
            assert len(heard) == 9 + 48, "a stranger hears the challenge, and nothing else"


def _receive(connection: socket.socket) -> bytes:
    try:
        return connection.recv(1_024)
    except ConnectionResetError:
        return b""


def test_connections_are_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("etcray.transport.server.STREAM_CONNECTIONS_MAX", 3)
    with StreamCluster(tmp_path, nodes=1) as cluster:
        (member,) = cluster.board.members
        credentials, address = credentials_of(cluster.spec), address_of(cluster.spec, member)
        held = [dial(address, credentials, member, "member", 30.0) for _ in range(3)]
        with pytest.raises(UnreachableError):
            dial(address, credentials, member, "member", 30.0)
        held.pop().close()
        wait_for(lambda: _dial_once(cluster, member), "room for another connection").close()
        for connection in held:
            connection.close()


def _dial_once(cluster: LocalCluster, member: MemberId) -> socket.socket | None:
    try:
        return dial(address_of(cluster.spec, member), credentials_of(cluster.spec), member, "member", 30.0)
    except UnreachableError:
        return None


def test_more_calls_than_a_connection_may_have_cut_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("etcray.transport.server.STREAM_CALLS_MAX", 3)
    with StreamCluster(tmp_path, nodes=1) as cluster:
        cluster.leader()
        (member,) = cluster.board.members
        address = address_of(cluster.spec, member)
        poll = api.encode(api.WatchPoll(1, False, 1_000, 30.0))
        with dial(address, credentials_of(cluster.spec), member, "gateway", 30.0) as connection:
            connection.settimeout(30.0)
            for number in range(1, 5):
                connection.sendall(header(Kind.WATCH, number, len(poll)) + poll)
            assert _receive(connection) == b"", "one poll too many: none is answered"


# --- where it listens -------------------------------------------------------------------------


def test_sockets_are_in_a_directory_of_the_users_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ETCRAY_RUN_DIR", str(tmp_path / ("x" * 100)))
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    path = socket_path(MemberId(1), "/data/m1")
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
    assert path == socket_path(MemberId(1), "/data/m1")
    assert path != socket_path(MemberId(2), "/data/m1")
    assert path != socket_path(MemberId(1), "/data/other")
    path.parent.chmod(0o755)
    socket_path(MemberId(1), "/data/m1")
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
    path.parent.rename(tmp_path / "moved")
    path.parent.symlink_to(tmp_path / "moved")
    with pytest.raises(DataDirectoryError, match="not a directory of this user's"):
        socket_path(MemberId(1), "/data/m1")


def test_a_run_directory_with_a_long_path_is_not_used(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ETCRAY_RUN_DIR", str(tmp_path / ("x" * 100)))
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    path = socket_path(MemberId(1), "/data/m1")
    assert path.parent == tmp_path / f"etcray-{os.getuid()}"
    listen_unix(path).close()
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / ("y" * 100)))
    with pytest.raises(DataDirectoryError, match="ETCRAY_RUN_DIR"):
        socket_path(MemberId(1), "/data/m1")


def test_members_on_other_hosts_are_reached_by_tcp(tmp_path: Path) -> None:
    """All are on this host: so they are told names of others."""
    with StreamCluster(tmp_path, nodes=1) as cluster:
        cluster.leader()
        (member,) = cluster.board.members
        server = cluster.board.members[member]._server
        assert server is not None
        assert not server.address.port
        server.listen_beyond("127.0.0.1")
        elsewhere = msgspec.structs.replace(server.address, hostname="elsewhere")
        assert (elsewhere.host, elsewhere.port > 0) == ("127.0.0.1", True)
        server.listen_beyond("127.0.0.1")
        assert server.address.port == elsewhere.port
        connection = dial(elsewhere, credentials_of(cluster.spec), member, "member", 30.0)
        assert connection.family == socket.AF_INET
        connection.close()
        with pytest.raises(UnreachableError, match="no address for other hosts"):
            dial(msgspec.structs.replace(elsewhere, port=0), credentials_of(cluster.spec), member, "member")


# --- processes that end, and that are paused --------------------------------------------------


def test_writes_go_on_when_the_leaders_process_is_killed_or_paused(tmp_path: Path) -> None:
    spec = make_direct_spec(tmp_path)
    ways = {member.id: calls_of(spec, member.id) for member in spec.members}

    def leader() -> MemberId | None:
        statuses = []
        for calls in ways.values():
            try:
                statuses.append(api.decode_status(calls.call(Kind.STATUS, b"", 1.0)))
            except UnreachableError:
                continue
        leaders = [status for status in statuses if status.role == "leader"]
        return max(leaders, key=lambda status: status.term).member if leaders else None

    def put(number: int) -> bool | None:
        batch = encode_batch(put_batch(1, number, {b"key": b"%d" % number} if number else {}))
        member = leader()
        if member is None:
            return None
        try:
            reply = api.decode_propose_reply(ways[member].call(Kind.PROPOSE, batch, 3.0))
        except UnreachableError:
            return None
        return reply.outcome is api.Outcome.ANSWERED or None

    names = {member.id: member.name for member in spec.members}
    processes = {member: MemberProcess(spec, tmp_path, name) for member, name in names.items()}
    try:
        for process in processes.values():
            assert process.opened() is None
        wait_for(lambda: put(0), "a session")
        wait_for(lambda: put(1), "a first put")
        killed = wait_for(leader, "a leader")
        processes.pop(killed).__exit__()
        wait_for(lambda: put(2), "a put after the leader was killed")
        processes[killed] = MemberProcess(spec, tmp_path, names[killed])
        assert processes[killed].opened() is None
        paused = wait_for(leader, "a leader")
        processes[paused].stop()
        wait_for(lambda: put(3) if leader() != paused else None, "a put while the old leader is paused")
        processes[paused].go_on()
        wait_for(
            lambda: api.decode_status(ways[paused].call(Kind.STATUS, b"", 5.0)).revision == 4 or None,
            "what was put meanwhile at the member that was paused",
        )
        assert leader() is not None
    finally:
        for calls in ways.values():
            calls.close()
        for process in processes.values():
            process.__exit__()
