"""`etcray sql` without a query: a prompt with history, completion and a timer.

A query ends with `;` or an empty line. Ctrl-C stops a running query or forgets a half-written one, Ctrl-D
leaves.
"""

from __future__ import annotations

import os
import signal
from pathlib import Path
from typing import Final

from prompt_toolkit import PromptSession
from prompt_toolkit.completion import WordCompleter
from prompt_toolkit.history import FileHistory, History, InMemoryHistory
from prompt_toolkit.key_binding import KeyBindings, KeyPressEvent

from etcray.cli import tables
from etcray.cli.kv import At
from etcray.cli.sql import Asked, ask, summary
from etcray.client import Client, EtcrayError
from etcray.errors import OptionsError

HELP: Final = """\
A query ends with ; or an empty line. Ctrl-C stops it, Ctrl-D leaves.
  .tables           what can be asked
  .describe TABLE   its columns
  .format FORMAT    table, json or csv
  .stale on|off     answer at once, from what the history has
  .help  .quit"""

KEYWORDS: Final = """
SELECT FROM WHERE GROUP BY ORDER LIMIT JOIN LEFT USING HAVING WITH AS DISTINCT UNION ALL EXCEPT INTERSECT
AND OR NOT IN LIKE ILIKE BETWEEN IS NULL CASE WHEN THEN ELSE END CAST INTERVAL DESC ASC OVER PARTITION
QUALIFY FILTER DESCRIBE EXPLAIN SHOW TABLES count sum min max avg arg_max arg_min list date_trunc now
regexp_matches contains starts_with length row_number lag"""

TABLES: Final = """
history history_with_previous kv kv_at( kv_as_of( changes( history_of( prefixes( leases members compactions"""


class _Settings:
    """What the dot commands change."""

    def __init__(self, asked: Asked) -> None:
        self.asked = asked
        self.format = "table"


def run(at: At, asked: Asked) -> None:
    """Until Ctrl-D."""
    settings = _Settings(asked)
    with at.client() as client:
        session: PromptSession[str] = PromptSession(
            history=_history(),
            completer=WordCompleter(
                [*KEYWORDS.split(), *TABLES.split(), *_columns(client, asked)], ignore_case=True
            ),
            complete_while_typing=False,
            multiline=True,
            key_bindings=_keys(),
            prompt_continuation="   ... ",
        )
        print("SQL over all revisions; .help says more")
        while True:
            try:
                text = session.prompt("etcray> ").strip()
            except KeyboardInterrupt:
                continue
            except EOFError:
                return
            if text in (".quit", ".exit"):
                return
            if text:
                _obey(client, text, settings)


def _obey(client: Client, text: str, settings: _Settings) -> None:
    """One line or query; whatever is wrong with it is said, and the prompt comes back."""
    try:
        if text.startswith("."):
            query = _command(text.rstrip(";"), settings)
            if query is None:
                return
        else:
            query = text
        before = signal.signal(signal.SIGINT, signal.default_int_handler)
        try:
            result = ask(client, query, [], settings.asked)
            tables.write(result.arrow(), settings.format, None)
            print(summary(result))
        finally:
            signal.signal(signal.SIGINT, before)
    except KeyboardInterrupt:
        print("stopped")
    except (EtcrayError, OptionsError) as error:
        print(f"Error: {error}")


def _command(text: str, settings: _Settings) -> str | None:
    """Carry out a dot command; the query that it stands for, if it does. Raises OptionsError."""
    match text.split():
        case [".help"]:
            print(HELP)
            return None
        case [".tables"]:
            return "SHOW TABLES"
        case [".describe", table]:
            return f"DESCRIBE {table}"
        case [".format", ("table" | "json" | "csv") as chosen]:
            settings.format = chosen
            return None
        case [".stale", ("on" | "off") as chosen]:
            settings.asked = settings.asked._replace(stale=chosen == "on")
            return None
    raise OptionsError(f"no such command: {text}. .help shows them")


def _keys() -> KeyBindings:
    """Enter ends a query that is complete, and begins a new line in one that is not."""
    bindings = KeyBindings()

    @bindings.add("enter")
    def on_enter(event: KeyPressEvent) -> None:
        buffer = event.current_buffer
        text = buffer.text.strip()
        is_complete = (
            not text or text.startswith(".") or text.endswith(";") or buffer.document.current_line == ""
        )
        if is_complete:
            buffer.validate_and_handle()
        else:
            buffer.insert_text("\n")

    return bindings


def _columns(client: Client, asked: Asked) -> list[str]:
    """For completion; the prompt comes also when the history is away just now."""
    try:
        described = ask(client, "DESCRIBE history", [], asked._replace(stale=True)).arrow()
    except EtcrayError as error:
        print(f"Error: {error}")
        return []
    return [str(name) for name in described.column(0).to_pylist()]


def _history() -> History:
    """Kept where programs keep such things; in memory if that cannot be written."""
    state = Path(os.environ.get("XDG_STATE_HOME") or Path.home() / ".local" / "state") / "etcray"
    try:
        state.mkdir(mode=0o700, parents=True, exist_ok=True)
        (state / "sql_history").touch(mode=0o600)
    except OSError:
        return InMemoryHistory()
    return FileHistory(str(state / "sql_history"))
