"""lease grant, revoke, keep-alive, timetolive and list. Lease ids are hexadecimal, as etcdctl has them."""

from __future__ import annotations

import time
from typing import Final

from etcray.cli.interrupts import until_interrupted
from etcray.cli.kv import At, lease_id_from
from etcray.cli.output import bytes_json, print_json, print_lines
from etcray.client import LeaseLostError, NotFoundError

RENEWALS_PER_TTL: Final = 3


def grant(ttl: int, lease_id: str, at: At, *, as_json: bool) -> None:
    with at.client() as client:
        granted = client.lease(ttl, lease_id_from(lease_id))
    if as_json:
        print_json({"id": f"{granted.id:x}", "ttl": granted.ttl})
    else:
        print_lines([b"lease %016x granted with TTL(%ds)" % (granted.id, granted.ttl)])


def revoke(lease: str, at: At, *, as_json: bool) -> None:
    """Raises NotFoundError."""
    number = lease_id_from(lease)
    with at.client() as client:
        client.find_lease(number).revoke()
    if as_json:
        print_json({"id": f"{number:x}", "revoked": True})
    else:
        print_lines([b"lease %016x revoked" % number])


def keep_alive(lease: str, once: bool, at: At, *, as_json: bool) -> None:
    """Until it is interrupted or the lease is gone."""
    number = lease_id_from(lease)
    with until_interrupted(), at.client() as client:
        try:
            found = client.find_lease(number)
            while True:
                ttl = found.keep_alive_once()
                if as_json:
                    print_json({"id": f"{number:x}", "ttl": ttl})
                else:
                    print_lines([b"lease %016x keepalived with TTL(%d)" % (number, ttl)])
                if once:
                    return
                time.sleep(ttl / RENEWALS_PER_TTL)
        except (NotFoundError, LeaseLostError):
            if as_json:
                print_json({"id": f"{number:x}", "ttl": 0})
            else:
                print_lines([b"lease %016x expired or revoked." % number])


def time_to_live(lease: str, keys: bool, at: At, *, as_json: bool) -> None:
    """A lease that does not exist is an answer, not an error."""
    number = lease_id_from(lease)
    with at.client() as client:
        try:
            found = client.find_lease(number).time_to_live(keys)
        except NotFoundError:
            found = None
    if as_json:
        content = {
            "id": f"{number:x}",
            "ttl": found.ttl if found else -1,
            "granted_ttl": found.granted_ttl if found else 0,
            "keys": [bytes_json("key", key) for key in found.keys] if found else [],
        }
        print_json(content)
    elif found is None or found.ttl < 0:
        print_lines([b"lease %016x already expired" % number])
    else:
        line = b"lease %016x granted with TTL(%ds), remaining(%ds)" % (number, found.granted_ttl, found.ttl)
        attached = b", attached keys([%s])" % b" ".join(found.keys) if keys else b""
        print_lines([line + attached])


def list_all(at: At, *, as_json: bool) -> None:
    with at.client() as client:
        found = client.leases()
    if as_json:
        print_json({"leases": [f"{number:x}" for number in found]})
    else:
        print_lines([b"found %d leases" % len(found), *(b"%016x" % number for number in found)])
