"""The engine: an error says what went wrong first, not what went wrong because of it."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
from collections.abc import Iterator

import duckdb
import pyarrow as pa
import pytest

from etcray_storage.engine import Engine
from etcray_storage.errors import StorageFullError


@pytest.fixture
def engine() -> Iterator[Engine]:
    engine = Engine.open(None)
    engine.execute("CREATE TABLE numbers (a INTEGER CHECK (a > 0))")
    yield engine
    engine.close()


def batches_until_the_disk_is_full() -> pa.RecordBatchReader:
    schema = pa.schema([("a", pa.int32())])

    def batches() -> Iterator[pa.RecordBatch]:
        yield pa.record_batch([pa.array([1], pa.int32())], schema)
        raise OSError(errno.ENOSPC, "No space left on device")

    return pa.RecordBatchReader.from_batches(schema, batches())


def test_an_insert_that_fails_in_a_transaction_raises_its_own_error(engine: Engine) -> None:
    with pytest.raises(duckdb.ConstraintException), engine.transaction():
        engine.insert("numbers", pa.table({"a": pa.array([0], pa.int32())}))


def test_a_full_disk_in_a_transaction_is_told_as_a_full_disk(engine: Engine) -> None:
    with pytest.raises(StorageFullError), engine.transaction():
        engine.insert("numbers", batches_until_the_disk_is_full())


def test_after_an_insert_that_failed_the_next_one_works(engine: Engine) -> None:
    with pytest.raises(duckdb.ConstraintException), engine.transaction():
        engine.insert("numbers", pa.table({"a": pa.array([0], pa.int32())}))
    with engine.transaction():
        engine.insert("numbers", pa.table({"a": pa.array([7], pa.int32())}))
    assert engine.query("SELECT a FROM numbers") == [(7,)]
    assert engine.query("SELECT count(*) FROM duckdb_views() WHERE view_name = 'arrow_rows'") == [(0,)]


def test_arrow_is_small_in_members_and_pandas_stays_there_for_others() -> None:
    code = """
import sys
import pyarrow as pa
from etcray_storage.engine import Engine, configure_arrow
configure_arrow()
engine = Engine.open(None)
engine.execute("CREATE TABLE numbers (a BIGINT)")
engine.insert("numbers", pa.table({"a": pa.array([1, 2, None])}))
assert engine.query("SELECT count(*) FROM numbers") == [(3,)]
print("pandas" in sys.modules)
print(pa.default_memory_pool().backend_name)
import pandas
print(len(pandas.DataFrame({"a": [1, 2]})))
"""
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True
    )
    assert done.stdout.split() == ["False", "system", "2"]
