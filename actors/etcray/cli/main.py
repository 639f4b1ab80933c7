"""The command line: names, options and help. What the commands do is in the modules beside this one,
imported when their command runs."""

from __future__ import annotations

import sys
from typing import Annotated, Any, Final, NoReturn

import typer
from typer.core import TyperCommand, TyperGroup

from etcray.cli import history_commands, membership_commands
from etcray.cli.options import (
    DEFAULT_ENDPOINTS,
    DEFAULT_TIMEOUT_SECONDS,
    Address,
    CommandTimeout,
    Consistency,
    DataDirectory,
    Durability,
    Endpoints,
    FromKey,
    Json,
    Key,
    Name,
    Order,
    Prefix,
    PrevKv,
    RangeEnd,
    SortBy,
    Transport,
    Tune,
)
from etcray.errors import ClusterError, OptionsError

EXIT_FAILED: Final = 1
EXIT_USAGE: Final = 2
COMMANDS_GROUP: Final = "etcray.commands"


class Commands(TyperGroup):
    """Our own commands, and those that other packages have entered into the group COMMANDS_GROUP of their
    entry points, each a Typer. They are looked up only for a name that is not ours, and for the list."""

    def list_commands(self, ctx: Any) -> list[str]:
        own = super().list_commands(ctx)
        return [*own, *sorted(name for name in added_commands() if name not in own)]

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        found = super().get_command(ctx, cmd_name)
        if found is None and (entry := added_commands().get(cmd_name)) is not None:
            found = typer.main.get_command(entry.load())
            found.name = cmd_name
        return found


def added_commands() -> dict[str, Any]:
    """Entry points by name."""
    from importlib.metadata import entry_points

    return {entry.name: entry for entry in entry_points(group=COMMANDS_GROUP)}


app = typer.Typer(
    cls=Commands,
    name="etcray",
    help="/etc on Ray: a strongly consistent key-value store that speaks the etcd v3 API.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
history_commands.add_to(app)


@app.command()
def up(
    nodes: Annotated[
        int | None,
        typer.Option("--nodes", help="Members: 1, 3, 5 or 7. Default: as stored, or 3.", show_default=False),
    ] = None,
    gateways: Annotated[int, typer.Option("--gateways", help="Gateways, on consecutive ports.")] = 1,
    name: Name = "default",
    data_dir: DataDirectory = "./etcray-data",
    address: Address = None,
    listen: Annotated[str, typer.Option("--listen", help="HOST:PORT of the first gateway.")] = (
        "127.0.0.1:2379"
    ),
    replace_after: Annotated[
        float | None,
        typer.Option(
            "--replace-after",
            metavar="SECONDS",
            help="Replace a member whose Ray node is gone for so long; 0: never. Default: as stored, or 60.",
            show_default=False,
        ),
    ] = None,
    detach: Annotated[bool, typer.Option("--detach", help="Return once it serves; it goes on.")] = False,
    history: Annotated[
        bool, typer.Option("--history/--no-history", help="Keep all revisions for SQL.")
    ] = True,
    retention_age: Annotated[
        str | None,
        typer.Option(
            "--history-retention-age", help="Keep what is younger: 90d, 12h, 30m, 45s.", show_default=False
        ),
    ] = None,
    retention_revisions: Annotated[
        int | None,
        typer.Option("--history-retention-revisions", help="Keep so many revisions.", show_default=False),
    ] = None,
    retention_bytes: Annotated[
        str | None,
        typer.Option("--history-retention-bytes", help="Keep so much: 500M, 20G.", show_default=False),
    ] = None,
    dashboard: Annotated[bool, typer.Option("--dashboard", help="With Ray's dashboard.")] = False,
    transport: Transport = None,
    durability: Durability = None,
    tune: Tune = None,
    json: Json = False,
) -> None:
    """Start a cluster, or start again the one that is stored, and show it until Ctrl-C."""
    from etcray.cli import up as command
    from etcray.launch import LaunchOptions
    from etcray.quantities import parse_bytes, parse_seconds
    from etcray.tuning import parse_numbers

    options = LaunchOptions(
        name=name,
        nodes=nodes,
        gateways=gateways,
        data_dir=data_dir,
        listen=listen,
        address=address,
        history=history,
        history_retention_seconds=None if retention_age is None else parse_seconds(retention_age),
        history_retention_revisions=retention_revisions,
        history_retention_bytes=None if retention_bytes is None else parse_bytes(retention_bytes),
        dashboard=dashboard,
        transport=transport,
        durability=durability,
        tune=parse_numbers(tune or []),
        replace_after=replace_after,
        is_command=True,
    )
    if detach:
        command.run_detached(options, json)
    else:
        command.run(options, json)


@app.command()
def status(name: Name = "default", address: Address = None, json: Json = False) -> None:
    """Show members, gateways, the history and the supervisor of a running cluster."""
    from etcray.cli import clusters

    clusters.status(name, address, json)


@app.command()
def down(name: Name = "default", address: Address = None, json: Json = False) -> None:
    """Stop a running cluster cleanly. Its data stays."""
    from etcray.cli import clusters

    clusters.down(name, address, json)


@app.command()
def get(
    key: Key,
    range_end: RangeEnd = None,
    prefix: Prefix = False,
    from_key: FromKey = False,
    rev: Annotated[int, typer.Option("--rev", help="As of this revision; 0 is now.")] = 0,
    limit: Annotated[int, typer.Option("--limit", help="At most so many pairs; 0 is all.")] = 0,
    keys_only: Annotated[bool, typer.Option("--keys-only", help="Without values.")] = False,
    count_only: Annotated[bool, typer.Option("--count-only", help="Only how many there are.")] = False,
    print_value_only: Annotated[bool, typer.Option("--print-value-only", help="Without keys.")] = False,
    sort_by: Annotated[SortBy, typer.Option("--sort-by", case_sensitive=False)] = SortBy.KEY,
    order: Annotated[Order, typer.Option("--order", case_sensitive=False)] = Order.ASCEND,
    consistency: Annotated[
        Consistency,
        typer.Option("--consistency", help="l: linearizable. s: serializable, faster, may be old."),
    ] = Consistency.LINEARIZABLE,
    endpoints: Endpoints = DEFAULT_ENDPOINTS,
    command_timeout: CommandTimeout = DEFAULT_TIMEOUT_SECONDS,
    json: Json = False,
) -> None:
    """Show the value of a key, or of several."""
    from etcray.cli import kv

    kv.get(kv.range_from(locals()), kv.Shown(keys_only, count_only, print_value_only, json), kv.At(locals()))


@app.command()
def put(
    key: Key,
    value: Annotated[
        str | None, typer.Argument(metavar="[VALUE]", help="From standard input if left out.")
    ] = None,
    lease: Annotated[str, typer.Option("--lease", help="Lease to attach the key to, hexadecimal.")] = "0",
    prev_kv: PrevKv = False,
    ignore_value: Annotated[bool, typer.Option("--ignore-value", help="Keep the value.")] = False,
    ignore_lease: Annotated[bool, typer.Option("--ignore-lease", help="Keep the lease.")] = False,
    endpoints: Endpoints = DEFAULT_ENDPOINTS,
    command_timeout: CommandTimeout = DEFAULT_TIMEOUT_SECONDS,
    json: Json = False,
) -> None:
    """Write a key."""
    from etcray.cli import kv

    kv.put(kv.put_from(locals(), standard_input=True), kv.At(locals()), as_json=json)


@app.command(name="del")
def delete(
    key: Key,
    range_end: RangeEnd = None,
    prefix: Prefix = False,
    from_key: FromKey = False,
    prev_kv: PrevKv = False,
    endpoints: Endpoints = DEFAULT_ENDPOINTS,
    command_timeout: CommandTimeout = DEFAULT_TIMEOUT_SECONDS,
    json: Json = False,
) -> None:
    """Remove a key, or several."""
    from etcray.cli import kv

    kv.delete(kv.delete_from(locals()), kv.At(locals()), as_json=json)


@app.command()
def txn(
    interactive: Annotated[
        bool, typer.Option("--interactive", "-i", help="With prompts; so it is on a terminal.")
    ] = False,
    endpoints: Endpoints = DEFAULT_ENDPOINTS,
    command_timeout: CommandTimeout = DEFAULT_TIMEOUT_SECONDS,
    json: Json = False,
) -> None:
    """Carry out a transaction, read from standard input.

    Comparisons, then what to do if all of them hold, then what to do if not; each part ends with an
    empty line. A comparison: mod("key") > "0", also create, version, value and lease, with < = != >.
    An operation: get, put or del with the options of those commands.
    """
    from etcray.cli import kv

    kv.txn(interactive or sys.stdin.isatty(), kv.At(locals()), as_json=json)


class CommandBehindDashes(TyperCommand):
    """What follows `--` is a command, and nothing else is: the arguments before it are optional."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        own, command = args, None
        if "--" in args:
            own, command = args[: args.index("--")], args[args.index("--") + 1 :]
        rest = super().parse_args(ctx, own)
        if ctx.params.get("command"):
            raise OptionsError("to run a command for each event, put it behind --")
        ctx.params["command"] = command
        return rest


@app.command(cls=CommandBehindDashes)
def watch(
    key: Annotated[str | None, typer.Argument(metavar="KEY", show_default=False)] = None,
    range_end: RangeEnd = None,
    command: Annotated[
        list[str] | None, typer.Argument(metavar="[-- COMMAND...]", help="Run for each event.")
    ] = None,
    prefix: Prefix = False,
    from_key: FromKey = False,
    rev: Annotated[int, typer.Option("--rev", help="From this revision on; 0 is now.")] = 0,
    prev_kv: PrevKv = False,
    progress_notify: Annotated[
        bool, typer.Option("--progress-notify", help="Show how far the server is, now and then.")
    ] = False,
    interactive: Annotated[
        bool, typer.Option("--interactive", "-i", help="Read watch and progress from standard input.")
    ] = False,
    endpoints: Endpoints = DEFAULT_ENDPOINTS,
    command_timeout: CommandTimeout = DEFAULT_TIMEOUT_SECONDS,
    json: Json = False,
) -> None:
    """Show events as they happen, until Ctrl-C."""
    from etcray.cli import watch as program
    from etcray.cli.kv import At

    if interactive:
        program.interactive(At(locals()), as_json=json)
    else:
        program.watch(program.arguments_from(locals()), At(locals()), as_json=json)


lease_app = typer.Typer(help="Leases: keys that vanish when nobody cares.", no_args_is_help=True)
app.add_typer(lease_app, name="lease")

LeaseId = Annotated[str, typer.Argument(metavar="ID", help="Hexadecimal.", show_default=False)]


@lease_app.command()
def grant(
    ttl: Annotated[int, typer.Argument(metavar="TTL", help="Seconds.", show_default=False)],
    lease_id: Annotated[str, typer.Option("--id", help="Hexadecimal; 0: the server chooses.")] = "0",
    endpoints: Endpoints = DEFAULT_ENDPOINTS,
    command_timeout: CommandTimeout = DEFAULT_TIMEOUT_SECONDS,
    json: Json = False,
) -> None:
    """Create a lease."""
    from etcray.cli import kv, lease

    lease.grant(ttl, lease_id, kv.At(locals()), as_json=json)


@lease_app.command()
def revoke(
    lease_id: LeaseId,
    endpoints: Endpoints = DEFAULT_ENDPOINTS,
    command_timeout: CommandTimeout = DEFAULT_TIMEOUT_SECONDS,
    json: Json = False,
) -> None:
    """End a lease and delete its keys."""
    from etcray.cli import kv, lease

    lease.revoke(lease_id, kv.At(locals()), as_json=json)


@lease_app.command(name="keep-alive")
def keep_alive(
    lease_id: LeaseId,
    once: Annotated[bool, typer.Option("--once", help="Renew it once and return.")] = False,
    endpoints: Endpoints = DEFAULT_ENDPOINTS,
    command_timeout: CommandTimeout = DEFAULT_TIMEOUT_SECONDS,
    json: Json = False,
) -> None:
    """Renew a lease until Ctrl-C."""
    from etcray.cli import kv, lease

    lease.keep_alive(lease_id, once, kv.At(locals()), as_json=json)


@lease_app.command()
def timetolive(
    lease_id: LeaseId,
    keys: Annotated[bool, typer.Option("--keys", help="With the keys that are attached.")] = False,
    endpoints: Endpoints = DEFAULT_ENDPOINTS,
    command_timeout: CommandTimeout = DEFAULT_TIMEOUT_SECONDS,
    json: Json = False,
) -> None:
    """Show how long a lease still has."""
    from etcray.cli import kv, lease

    lease.time_to_live(lease_id, keys, kv.At(locals()), as_json=json)


@lease_app.command(name="list")
def list_leases(
    endpoints: Endpoints = DEFAULT_ENDPOINTS,
    command_timeout: CommandTimeout = DEFAULT_TIMEOUT_SECONDS,
    json: Json = False,
) -> None:
    """Show the ids of all leases."""
    from etcray.cli import kv, lease

    lease.list_all(kv.At(locals()), as_json=json)


@app.command()
def lock(
    name: Annotated[str, typer.Argument(metavar="NAME", show_default=False)],
    command: Annotated[
        list[str] | None,
        typer.Argument(metavar="[-- COMMAND...]", help="Run while it is held; its exit code is ours."),
    ] = None,
    ttl: Annotated[int, typer.Option("--ttl", help="Seconds until a holder that vanished loses it.")] = 10,
    endpoints: Endpoints = DEFAULT_ENDPOINTS,
    command_timeout: CommandTimeout = DEFAULT_TIMEOUT_SECONDS,
    json: Json = False,
) -> None:
    """Hold a lock while a command runs, or until Ctrl-C. The command finds ETCD_LOCK_KEY and ETCD_LOCK_REV in
    its environment, and is stopped if the lock is lost."""
    from etcray.cli import kv
    from etcray.cli import lock as program

    program.lock(name, ttl, command or [], kv.At(locals()), as_json=json)


@app.command()
def elect(
    name: Annotated[str, typer.Argument(metavar="NAME", show_default=False)],
    proposal: Annotated[
        str | None, typer.Argument(metavar="[PROPOSAL]", help="What to say as the leader.")
    ] = None,
    listen: Annotated[bool, typer.Option("--listen", "-l", help="Show who leads; do not take part.")] = False,
    endpoints: Endpoints = DEFAULT_ENDPOINTS,
    command_timeout: CommandTimeout = DEFAULT_TIMEOUT_SECONDS,
    json: Json = False,
) -> None:
    """Take part in an election and lead until Ctrl-C, or watch one."""
    from etcray.cli import kv
    from etcray.cli import lock as program

    program.elect(name, proposal, listen, kv.At(locals()), as_json=json)


membership_commands.add_to(app)


def main() -> NoReturn:
    """The entry point: every expected error becomes one message and an exit code."""
    try:
        app()
    except Exception as error:
        code = exit_code_of(error)
        if code is None:
            raise
        print(f"Error: {error}{advice_on(error)}", file=sys.stderr)
        sys.exit(code)
    sys.exit(0)


def advice_on(error: Exception) -> str:
    """What to do about an error whose own text does not say it."""
    client_errors = sys.modules.get("etcray.client.errors")
    if client_errors is not None and isinstance(error, client_errors.UnavailableError):
        return ". Is the cluster running? `etcray up` starts one, --endpoints says where it listens"
    return ""


def exit_code_of(error: Exception) -> int | None:
    """None for an error that nobody expected: its traceback is then the message."""
    from etcray_storage.errors import OperatingError

    if isinstance(error, OptionsError):
        return EXIT_USAGE
    if isinstance(error, ClusterError | OperatingError):
        return EXIT_FAILED
    # Only a command that used the client can have raised its errors: do not import it for that.
    client_errors = sys.modules.get("etcray.client.errors")
    if client_errors is not None and isinstance(error, client_errors.EtcrayError):
        return EXIT_FAILED
    return None
