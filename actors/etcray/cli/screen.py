"""What `up` shows: a table that stays current on a terminal, lines elsewhere, or JSON."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any, Protocol, TextIO

import msgspec

from etcray.status import ActorReport, ClusterStatus, HistoryReport, MemberReport
from etcray.tuning import DEFAULT_TUNING, WRITTEN_WARNING, Durability, Tuning

if TYPE_CHECKING:
    from rich.console import RenderableType
    from rich.table import Table


class Screen(Protocol):
    """Where `up` shows how it goes. `close` is called once, last."""

    def step(self, text: str) -> None: ...

    def show(self, status: ClusterStatus) -> None: ...

    def close(self) -> None: ...


def open_screen(file: TextIO, data_directory: str, *, as_json: bool) -> Screen:
    """The right one for where the output goes."""
    if as_json:
        return JsonScreen(file, data_directory)
    return LiveScreen(file, data_directory) if file.isatty() else LineScreen(file, data_directory)


class LineScreen:
    """Plain lines: each step, the whole cluster once it is ready, and then what changes."""

    def __init__(self, file: TextIO, data_directory: str) -> None:
        self._file = file
        self._data_directory = data_directory
        self._was: ClusterStatus | None = None
        self._told_ready = False

    def step(self, text: str) -> None:
        self._print(text)

    def show(self, status: ClusterStatus) -> None:
        if status.ready and not self._told_ready:
            self._told_ready = True
            for line in describe(status, self._data_directory):
                self._print(line)
        else:
            for line in changes(self._was, status):
                self._print(line)
        self._was = status

    def close(self) -> None:
        self._file.flush()

    def _print(self, line: str) -> None:
        print(f"{time.strftime('%H:%M:%S')} {line}" if line else "", file=self._file, flush=True)


class JsonScreen:
    """One JSON object for each change that matters, the first one when the cluster is ready."""

    def __init__(self, file: TextIO, data_directory: str) -> None:
        self._file = file
        self._data_directory = data_directory
        self._was: ClusterStatus | None = None

    def step(self, text: str) -> None:
        """Steps are for people."""

    def show(self, status: ClusterStatus) -> None:
        if self._was is None and not status.ready:
            return
        if self._was is not None and not changes(self._was, status):
            return
        self._was = status
        content = {"data_directory": self._data_directory, **status_json(status)}
        print(msgspec.json.encode(content).decode(), file=self._file, flush=True)

    def close(self) -> None:
        self._file.flush()


class LiveScreen:
    """A terminal: steps scroll by, below them a table that stays current."""

    def __init__(self, file: TextIO, data_directory: str) -> None:
        from rich.console import Console
        from rich.live import Live

        self._data_directory = data_directory
        self._console = Console(file=file)
        self._live = Live(console=self._console, auto_refresh=False, redirect_stdout=False)
        self._live.start()
        self._started = time.monotonic()

    def step(self, text: str) -> None:
        self._console.print(f"[dim]{time.monotonic() - self._started:5.1f} s[/]  {text}", highlight=False)
        self._live.refresh()

    def show(self, status: ClusterStatus) -> None:
        self._live.update(self._render(status), refresh=True)

    def close(self) -> None:
        self._live.stop()

    def _render(self, status: ClusterStatus) -> RenderableType:
        from rich.console import Group
        from rich.text import Text

        parts: list[RenderableType] = [Text(headline(status), style="bold"), cluster_table(status)]
        parts += [Text(line, style="bold red") for line in deviations(status.tuning)]
        if status.ready:
            parts += [Text(line) for line in how_to_connect(status)]
            parts.append(Text(f"data in {self._data_directory}", style="dim"))
            parts.append(Text("Ctrl-C stops the cluster cleanly.", style="dim"))
        return Group(*parts)


# --- the same facts in several shapes ---------------------------------------------------------


def status_json(status: ClusterStatus) -> dict[str, Any]:
    """Ids in hexadecimal, as etcd's tools print them."""
    content: dict[str, Any] = msgspec.to_builtins(status)
    content["cluster_id"] = f"{status.cluster_id:x}"
    content["leader"] = f"{status.leader:x}" if status.leader else None
    for member in content["members"]:
        member["id"] = f"{member['id']:x}"
        member["leader"] = f"{member['leader']:x}" if member["leader"] else None
    return content


def headline(status: ClusterStatus) -> str:
    leader = next((member.name for member in status.members if member.id == status.leader), "nobody")
    state = "ready" if status.ready else "not ready"
    changing = f"; {status.membership}" if status.membership else ""
    return f"cluster {status.name} ({status.cluster_id:x}) is {state}; {leader} leads{changing}"


def how_to_connect(status: ClusterStatus) -> list[str]:
    endpoints = ",".join(status.endpoints)
    lines = [
        f"endpoint {endpoints}",
        f"  etcdctl --endpoints={endpoints} put greeting hello",
        f'  python  from etcray import Client; Client("{endpoints}").put("greeting", "hello")',
    ]
    if status.history is not None:
        lines.append(f'  etcray  sql --endpoints={endpoints} "SELECT * FROM history"')
    return lines


def member_cells(member: MemberReport) -> list[str]:
    return [
        member.name,
        f"{member.id:x}",
        "learner" if member.learner and member.role == "follower" else member.role,
        str(member.term),
        str(member.applied_index),
        str(member.process_id or "-"),
        state_of(member),
    ]


def history_cells(history: HistoryReport) -> list[str]:
    """Its name, what it holds, how far behind it is, and the revision."""
    behind = "does not follow" if history.note else "begins to follow"
    if history.is_following:
        behind = "follows"
    if history.lag_revisions:
        behind = f"{history.lag_revisions} behind"
    return [history.name, f"{history.size_bytes / 2**20:.1f} MiB", behind, str(history.revision)]


def state_of(actor: ActorReport) -> str:
    """The phase, with what explains it."""
    state = actor.phase
    if actor.phase == "serving":
        if actor.silent_seconds > 3:
            state += f", silent for {actor.silent_seconds:.0f} s"
        if actor.restarts:
            state += f", restarted {actor.restarts} times" if actor.restarts > 1 else ", restarted once"
    elif actor.problem:
        state += f": {actor.problem}"
    return state


MEMBER_TITLES = ("member", "id", "role", "term", "applied", "pid", "state")


def cluster_table(status: ClusterStatus) -> Table:
    """Members and gateways as one table of the terminal."""
    from rich.table import Table

    table = Table(box=None, pad_edge=False, header_style="dim")
    for title in MEMBER_TITLES:
        table.add_column(title, justify="right" if title in ("term", "applied", "pid") else "left")
    for member in status.members:
        style = "green" if member.role == "leader" else None if member.phase == "serving" else "red"
        table.add_row(*member_cells(member), style=style)
    for gateway in status.gateways:
        cells = [gateway.name, gateway.endpoint, "gateway", "", "", str(gateway.process_id or "-")]
        style = None if gateway.phase == "serving" else "red"
        table.add_row(*cells, state_of(gateway), style=style)
    if status.history is not None:
        name, held, behind, revision = history_cells(status.history)
        cells = [name, held, behind, "", revision, str(status.history.process_id or "-")]
        table.add_row(
            *cells, state_of(status.history), style=None if status.history.phase == "serving" else "red"
        )
    table.add_row("supervisor", "", "", "", "", str(status.supervisor.process_id), "")
    return table


def describe(status: ClusterStatus, data_directory: str) -> list[str]:
    """The whole cluster as plain lines."""
    rows = [list(MEMBER_TITLES), *(member_cells(member) for member in status.members)]
    widths = [max(len(row[column]) for row in rows) for column in range(len(MEMBER_TITLES))]
    lines = [headline(status) + (f"; data in {data_directory}" if data_directory else "")]
    for row in rows:
        lines.append("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())
    lines += [
        f"{gateway.name} on {gateway.endpoint}, pid {gateway.process_id or '-'}, {state_of(gateway)}"
        for gateway in status.gateways
    ]
    if status.history is not None:
        name, held, behind, revision = history_cells(status.history)
        pid, state = status.history.process_id or "-", state_of(status.history)
        is_known = status.history.phase == "serving"
        holds = f"at revision {revision}, {behind}, {held}" if is_known else "still away"
        lines.append(f"{name} {holds}, pid {pid}, {state}")
    lines.append(f"supervisor, pid {status.supervisor.process_id}")
    lines += deviations(status.tuning)
    return lines + how_to_connect(status)


def deviations(tuning: Tuning) -> list[str]:
    """What differs from the defaults, in one line; and another for what has to be said loudly."""
    chosen = [
        f"{name} {value}"
        for name, value in msgspec.to_builtins(tuning).items()
        if value != getattr(DEFAULT_TUNING, name)
    ]
    lines = [f"tuned: {', '.join(chosen)}"] if chosen else []
    return lines + ([WRITTEN_WARNING] if tuning.durability is Durability.WRITTEN else [])


def all_actors(status: ClusterStatus) -> list[ActorReport]:
    """But the supervisor."""
    return [*status.members, *status.gateways, *([status.history] if status.history else [])]


def changes(before: ClusterStatus | None, now: ClusterStatus) -> list[str]:
    """What is worth a line: phases, processes, and who leads. Numbers that always move are not."""
    lines: list[str] = []
    known = {actor.name: actor for actor in all_actors(before)} if before else {}
    gone = known.keys() - {actor.name for actor in all_actors(now)}
    lines += [f"{name} is no member any more" for name in sorted(gone)]
    for actor in all_actors(now):
        was = known.get(actor.name)
        moved = was is not None and actor.process_id and was.process_id and actor.process_id != was.process_id
        if was is None or was.phase != actor.phase or moved:
            lines.append(f"{actor.name} (pid {actor.process_id or '-'}) is {state_of(actor)}")
    if before is None or (before.leader, before.ready, before.membership) != (
        now.leader,
        now.ready,
        now.membership,
    ):
        lines.append(headline(now))
    if before is not None and before.supervisor.process_id != now.supervisor.process_id:
        lines.append(f"the supervisor was restarted, pid {now.supervisor.process_id}")
    return lines
