"""A cluster in a process of its own, so that its Ray may be killed without the tester.

    python -m tests.consistency.cluster_process DIRECTORY NODES GATEWAYS PORT TRANSPORT

It launches the cluster and then answers one JSON line on stdin with one on stdout, until stdin ends:

    {"do": "status"}                       the status, and the processes of Ray
    {"do": "dump", "member": name, "from": revision, "to": revision}
                                           a digest of everything that member has at `to`
    {"do": "add"}                          add a member
    {"do": "remove", "member": name}       remove it
    {"do": "lead", "member": name}         have it lead
    {"do": "resize", "voters": number}     have so many voters
"""

from __future__ import annotations

import hashlib
import os
import sys
import time
from functools import partial
from pathlib import Path
from typing import Any, TextIO

import msgspec

from etcray import Cluster
from etcray.launch import LaunchOptions, history_class
from etcray.node import api
from etcray.spec import RAY_NAMESPACE, member_actor_name
from etcray_bench.systems.hosted import answer_lines, own_stdout, say
from etcray_storage.commands import ReadKind
from etcray_storage.proto import rpc_pb2 as rpc
from tests.consistency.fault_files import FAULTS_VARIABLE
from tests.consistency.faulty_member import faulty_gateway_class, faulty_member_class

NAME = "consistency"
DUMP_SECONDS_MAX = 30.0
CALL_SECONDS_MAX = 10.0
CHANGE_SECONDS_MAX = 60.0
PAGE_REVISIONS = 5_000
PAGE_BYTES = 4 * 2**20


class BehindError(Exception):
    """The member has not applied that far, or does not answer."""


def serve(answers: TextIO, directory: Path, nodes: int, gateways: int, port: int, transport: str) -> None:
    assert os.environ[FAULTS_VARIABLE], "members would not know where their faults are"
    options = LaunchOptions(
        name=NAME,
        nodes=nodes,
        gateways=gateways,
        data_dir=str(directory),
        listen=f"127.0.0.1:{port}",
        transport=transport,
    )
    with Cluster.launch_with(
        options, factories=(faulty_member_class, faulty_gateway_class, history_class)
    ) as cluster:
        cluster.wait_ready(120.0)
        say(answers, {"ready": True})
        answer_lines(answers, partial(answer, cluster))


def answer(cluster: Cluster, command: dict[str, Any]) -> dict[str, Any]:
    if command["do"] == "status":
        return {"status": msgspec.to_builtins(cluster.status()), "ray": ray_processes()}
    if command["do"] == "dump":
        return {"digest": dump(command["member"], command["from"], command["to"])}
    if command["do"] == "add":
        return {"added": cluster.add_member(timeout=CHANGE_SECONDS_MAX).name}
    if command["do"] == "remove":
        cluster.remove_member(command["member"], timeout=CHANGE_SECONDS_MAX)
    elif command["do"] == "lead":
        cluster.move_leader(command["member"], timeout=CHANGE_SECONDS_MAX)
    else:
        assert command["do"] == "resize", f"nobody knows how to {command}"
        cluster.resize(command["voters"], timeout=CHANGE_SECONDS_MAX)
    return {"done": True}


def ray_processes() -> dict[str, int]:
    """By kind, as Ray calls them; only of a Ray that this process started."""
    import ray._private.worker as worker

    node: Any = worker._global_node
    return {kind: found[0].process.pid for kind, found in node.all_processes.items() if found}


def dump(member: str, first: int, last: int) -> str:
    """A digest of every event from `first` to `last`, and of the whole state at `last`, as this member
    has them. Raises BehindError if it never gets that far."""
    import ray

    deadline = time.monotonic() + DUMP_SECONDS_MAX
    while True:
        try:
            handle = ray.get_actor(member_actor_name(NAME, member), namespace=RAY_NAMESPACE)
            return _dump(handle, first, last)
        except (BehindError, ValueError, ray.exceptions.RayError):
            if time.monotonic() > deadline:
                raise
            time.sleep(0.1)


def _dump(handle: Any, first: int, last: int) -> str:
    import ray

    digest = hashlib.sha256()
    start = first
    while start <= last:
        request = api.HistoryRequest(b"\0", b"\0", start, last, False, PAGE_REVISIONS, PAGE_BYTES)
        reply = api.decode_history_reply(
            ray.get(handle.history.remote(api.encode(request)), timeout=CALL_SECONDS_MAX)
        )
        if reply.outcome is not api.Outcome.ANSWERED:
            raise BehindError(f"revision {last} is not there yet")
        if reply.compact_revision > start:
            digest.update(b"compacted up to %d" % reply.compact_revision)
            start = reply.compact_revision
            continue
        for revision, key, event in zip(reply.revisions, reply.keys, reply.events, strict=True):
            digest.update(b"%d %d %d\n" % (revision, len(key), len(event)) + key + event)
        start = reply.through_revision + 1
    message = rpc.RangeRequest(key=b"\0", range_end=b"\0", revision=last, serializable=True)
    read = api.ReadRequest(False, bytes([ReadKind.RANGE]), [message.SerializeToString()])
    found = api.decode_read_reply(ray.get(handle.read.remote(api.encode(read)), timeout=CALL_SECONDS_MAX))
    if found.outcome is not api.Outcome.ANSWERED or found.errors[0]:
        raise BehindError(f"revision {last} cannot be read: {found.outcome.name} {found.errors}")
    digest.update(found.bodies[0])
    return digest.hexdigest()


if __name__ == "__main__":
    serve(own_stdout(), Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]), int(sys.argv[4]), sys.argv[5])
