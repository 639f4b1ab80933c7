"""The name of a new member, asked for as soon as a cluster is ready."""

from __future__ import annotations

import pytest

from etcray.cluster import free_name
from etcray.errors import MembershipError
from etcray.status import ClusterStatus, SupervisorReport
from etcray_storage.types import ClusterId, MemberId


def status(next_name: str) -> ClusterStatus:
    return ClusterStatus(
        name="c",
        cluster_id=ClusterId(1),
        ready=True,
        leader=MemberId(1),
        endpoints=(),
        members=(),
        gateways=(),
        history=None,
        supervisor=SupervisorReport(process_id=1, ray_node=""),
        next_name=next_name,
    )


def test_a_supervisor_that_has_not_looked_yet_is_asked_again() -> None:
    answers = [status("member4"), status(""), status("")]
    assert free_name(lambda: answers.pop(), 60.0) == "member4"


def test_a_supervisor_that_never_looks_is_given_up() -> None:
    with pytest.raises(MembershipError, match="is there a leader"):
        free_name(lambda: status(""), 0.0)
