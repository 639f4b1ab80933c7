"""The child process that runs users' SQL: `python -m etcray_storage.history.worker DIRECTORY MEMORY_MIB`.

It reads frames from its standard input and writes frames to its standard output. One thread reads, so that
a cancellation reaches a query that runs; the other answers. The tail's rows stay here between queries,
outside of what SQL can name, so that a query brings only the newest.
"""

from __future__ import annotations

import os
import queue
import sys
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import BinaryIO, Final

import msgspec
import pyarrow as pa

from etcray_storage.history.confinement import confine
from etcray_storage.history.messages import Answer, Kind, Query, Run, read_frame, write_frame
from etcray_storage.history.rows import COMPACTIONS_SCHEMA, ROWS_SCHEMA, empty_sides
from etcray_storage.history.sandbox import Sandbox
from etcray_storage.limits import HISTORY_QUERY_ADDRESS_SPACE_MIB

RELATIONS: Final = ("tail", "lease_rows", "member_rows", "compaction_rows")
TAIL_CHUNKS_MAX: Final = 64
"""More pieces of the tail than this are made one; a scan pays for each."""


class TailCache:
    """The tail, as far as it was sent."""

    def __init__(self) -> None:
        self._epoch = -1
        self.table: pa.Table = ROWS_SCHEMA.empty_table()

    def add(self, epoch: int, rows: pa.Table) -> pa.Table:
        if epoch != self._epoch:
            self._epoch, self.table = epoch, rows
        elif rows.num_rows:
            self.table = pa.concat_tables([self.table, rows])
        if self.table["main"].num_chunks > TAIL_CHUNKS_MAX:
            self.table = self.table.combine_chunks()
        return self.table


class Worker:
    """Answers one query after the other until its input ends."""

    def __init__(self, source: BinaryIO, sink: BinaryIO) -> None:
        self._source = source
        self._sink = sink
        self._sandbox = Sandbox()
        self._tail = TailCache()
        self._runs: queue.SimpleQueue[tuple[Run, bytes]] = queue.SimpleQueue()
        """At most one: the pool sends the next query only when it has the answer to the last."""
        self._current = ""
        """The query that was received last. Written by the reader only."""

    def serve(self) -> None:
        threading.Thread(target=self._read, name="reader", daemon=True).start()
        write_frame(self._sink, Kind.READY)
        encode = msgspec.msgpack.Encoder().encode
        while True:
            run, body = self._runs.get()
            write_frame(self._sink, Kind.BEGUN)
            answer = self._sandbox.run(run, self._relations(run, body))
            head = encode(msgspec.structs.replace(answer, arrow=b""))
            write_frame(self._sink, Kind.ANSWER, head, answer.arrow)

    def _read(self) -> None:
        """When this ends, by the end of the input or an error, nobody can stop a query: so all ends."""
        try:
            self._read_frames()
        except EOFError:
            os._exit(0)
        finally:
            os._exit(1)

    def _read_frames(self) -> None:
        decode = msgspec.msgpack.Decoder(Run).decode
        while True:
            kind, head, body = read_frame(self._source)
            if kind is Kind.RUN:
                run = decode(head)
                self._current = run.query.query_id
                self._runs.put((run, body))
            elif kind is Kind.CANCEL and head.decode() == self._current:
                self._sandbox.interrupt()

    def _relations(self, run: Run, body: bytes) -> Mapping[str, pa.Table]:
        tables = split(body, run.sizes)
        tables[0] = self._tail.add(run.tail_epoch, tables[0])
        return dict(zip(RELATIONS, tables, strict=True))


def split(body: bytes, sizes: list[int]) -> list[pa.Table]:
    """The tables of a frame's body; they point into it."""
    buffer = pa.py_buffer(body)
    tables, start = [], 0
    for size in sizes:
        tables.append(pa.ipc.open_stream(buffer.slice(start, size)).read_all())
        start += size
    return tables


def warm_up(memory_mib: int) -> None:
    """Load what is loaded on first use, while files can still be opened. Its threads end with it."""
    sides = empty_sides()
    tables = (ROWS_SCHEMA.empty_table(), sides.leases, sides.members, COMPACTIONS_SCHEMA.empty_table())
    relations = dict(zip(RELATIONS, tables, strict=True))
    query = Query("", "SELECT *, now() FROM history WHERE value_json->>'a' = key_text ORDER BY committed_at")
    run = Run(query, 1, [], [], 0, [], memory_mib)
    answer: Answer = Sandbox().run(run, relations)
    assert not answer.error_code, f"the first query: {answer.error_message}"


def main() -> None:
    directory, memory_mib = Path(sys.argv[1]), int(sys.argv[2])
    pa.set_cpu_count(1)
    pa.set_io_thread_count(1)
    source, sink = os.fdopen(os.dup(0), "rb"), os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # whatever prints must not break the framing
    warm_up(memory_mib)
    confine(directory, HISTORY_QUERY_ADDRESS_SPACE_MIB)
    Worker(source, sink).serve()


if __name__ == "__main__":
    main()
