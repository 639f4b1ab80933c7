"""The command line of what changes the membership: names, options and help."""

from __future__ import annotations

from typing import Annotated

import typer

from etcray.cli.options import Address, DataDirectory, Json, Name

Member = Annotated[str, typer.Argument(metavar="MEMBER", help="Its name, or its id.", show_default=False)]
Timeout = Annotated[float, typer.Option("--timeout", help="Seconds until it has to be done.")]

TIMEOUT_SECONDS = 120.0

member_app = typer.Typer(help="The members of a running cluster.", no_args_is_help=True)


def add_to(app: typer.Typer) -> None:
    """Make these commands part of `app`."""
    app.add_typer(member_app, name="member")
    app.command()(resize)
    app.command()(move_leader)
    app.command()(recover)


def resize(
    nodes: Annotated[int, typer.Argument(metavar="N", help="1, 3, 5 or 7.", show_default=False)],
    name: Name = "default",
    address: Address = None,
    timeout: Timeout = TIMEOUT_SECONDS,
    json: Json = False,
) -> None:
    """Have N members: add them, let them catch up and promote them, or remove some, while it serves."""
    from etcray.cli import member

    member.resize(member.At(name, address, timeout, json), nodes)


def move_leader(
    to: Member,
    name: Name = "default",
    address: Address = None,
    timeout: Timeout = TIMEOUT_SECONDS,
    json: Json = False,
) -> None:
    """Have another member lead."""
    from etcray.cli import member

    member.move_leader(member.At(name, address, timeout, json), to)


@member_app.command(name="list")
def list_members(name: Name = "default", address: Address = None, json: Json = False) -> None:
    """Show the members."""
    from etcray.cli import member

    member.list_all(member.At(name, address, TIMEOUT_SECONDS, json))


@member_app.command()
def add(
    member_name: Annotated[
        str | None, typer.Argument(metavar="[NAME]", help="Chosen if left out.", show_default=False)
    ] = None,
    learner: Annotated[bool, typer.Option("--learner", help="It stays a learner, without a vote.")] = False,
    name: Name = "default",
    address: Address = None,
    timeout: Timeout = TIMEOUT_SECONDS,
    json: Json = False,
) -> None:
    """Add a member, start it, let it catch up and promote it."""
    from etcray.cli import member

    member.add(member.At(name, address, timeout, json), member_name, learner)


@member_app.command()
def remove(
    which: Member,
    name: Name = "default",
    address: Address = None,
    timeout: Timeout = TIMEOUT_SECONDS,
    json: Json = False,
) -> None:
    """Remove a member; a leader hands its leadership over first. Its directory is set aside."""
    from etcray.cli import member

    member.remove(member.At(name, address, timeout, json), which)


@member_app.command()
def promote(
    which: Member,
    name: Name = "default",
    address: Address = None,
    timeout: Timeout = TIMEOUT_SECONDS,
    json: Json = False,
) -> None:
    """Make a learner a voter, as soon as it has caught up."""
    from etcray.cli import member

    member.promote(member.At(name, address, timeout, json), which)


@member_app.command()
def update(
    which: Member,
    peer_urls: Annotated[str, typer.Option("--peer-urls", help="With commas.", show_default=False)],
    name: Name = "default",
    address: Address = None,
    timeout: Timeout = TIMEOUT_SECONDS,
    json: Json = False,
) -> None:
    """Show other peer URLs for a member. Members of etcray do not need them to find each other."""
    from etcray.cli import member

    member.update(member.At(name, address, timeout, json), which, peer_urls)


def recover(
    data_dir: DataDirectory = "./etcray-data",
    name: Name = "default",
    yes: Annotated[bool, typer.Option("--yes", help="Do it. Otherwise it is only said.")] = False,
    json: Json = False,
) -> None:
    """Go on after a majority of the members was lost: the one with the longest log becomes the only member.

    For a cluster that is stopped. Says first what may be lost; members that are left out are set aside, and
    nobody listens to them any more if they come back elsewhere. `etcray resize` makes it grow again.
    """
    from etcray.cli import recover as program

    program.recover(data_dir, name, yes, as_json=json)
