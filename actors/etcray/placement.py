"""Where an actor has to live: on the machine that has its directory or its port. Pure but for one look
at a directory."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from etcray.spec import MemberSpec, NodePin
from etcray_storage.errors import QuarantinedError


def choose_node(pin: NodePin, nodes: Sequence[dict[str, Any]], place: int) -> str:
    """The id of a living Ray node on the pinned machine. Several nodes may run on one machine: there
    the actors take turns, by their place among their kind. Raises LookupError if there is none."""
    here = [
        n for n in nodes if n["NodeManagerHostname"] == pin.hostname and pin.node_name in ("", _own_name(n))
    ]
    exact = [n for n in here if n["NodeManagerAddress"] == pin.address] or here
    if not exact:
        named = f", named {pin.node_name}" if pin.node_name else ""
        raise LookupError(f"no living Ray node on {pin.hostname} ({pin.address}{named}), where the data is")
    ids = sorted(str(node["NodeID"]) for node in exact)
    return ids[place % len(ids)]


def pin_of(node: dict[str, Any]) -> NodePin:
    """What is lasting about a Ray node."""
    return NodePin(
        hostname=node["NodeManagerHostname"], address=node["NodeManagerAddress"], node_name=_own_name(node)
    )


def _own_name(node: dict[str, Any]) -> str:
    """The name that a person gave the node; Ray calls it by its address otherwise."""
    name = str(node.get("NodeName", ""))
    return "" if name == node["NodeManagerAddress"] else name


def spread(nodes: Sequence[NodePin], taken: Sequence[NodePin | None], count: int) -> list[NodePin]:
    """Where so many more members live: each on a node that has the fewest by then, in the given order.
    Several Ray nodes with one pin (on one machine) count as so many."""
    assert nodes, "no node to live on"
    load = Counter(pin for pin in taken if pin is not None)
    room = Counter(nodes)
    chosen = []
    for _ in range(count):
        place = min(dict.fromkeys(nodes), key=lambda node: load[node] // room[node])
        load[place] += 1
        chosen.append(place)
    return chosen


def check_directory(member: MemberSpec) -> None:
    """For a member that has had a directory: raises QuarantinedError if that is gone or empty. The
    member would forget for whom it voted, and what it promised to keep."""
    path = Path(member.data_directory)
    if not path.is_dir() or not any(path.iterdir()):
        raise QuarantinedError(
            f"the data of {member.name} in {path} is gone. It must not start empty: restore the directory, "
            "or replace the member"
        )
