"""The tables of a results file."""

from __future__ import annotations

from typing import Final

SCHEMA_VERSION: Final = 1

TABLES: Final = """
CREATE TABLE schema_version (version INTEGER NOT NULL);
CREATE TABLE runs (
    run_id INTEGER NOT NULL,
    experiment VARCHAR NOT NULL,
    plan JSON NOT NULL,             -- what was asked: values of the variables, repetitions, seconds
    started_at TIMESTAMP NOT NULL,
    finished_at TIMESTAMP,          -- NULL: under way, or interrupted
    commit VARCHAR NOT NULL,        -- of the source, with "+changes" if it was not clean; or the version
    cpu_model VARCHAR NOT NULL,
    cpus INTEGER NOT NULL,
    memory_bytes BIGINT NOT NULL,
    kernel VARCHAR NOT NULL,
    load_average DOUBLE NOT NULL,   -- of the last minute, when the run began
    versions JSON NOT NULL,         -- of python, ray, duckdb, etcray, etcd ...
    ray_nodes INTEGER NOT NULL      -- 1, or how many the cluster had that was joined
);
CREATE TABLE points (
    run_id INTEGER NOT NULL,
    point_id INTEGER NOT NULL,      -- in the order of the sweep, from 0
    variables JSON NOT NULL,
    error VARCHAR NOT NULL,         -- empty: done
    started_at TIMESTAMP NOT NULL,
    finished_at TIMESTAMP NOT NULL,
    load_average DOUBLE NOT NULL    -- of the last minute, when the point began
);
CREATE TABLE samples (
    run_id INTEGER NOT NULL,
    point_id INTEGER NOT NULL,
    repetition INTEGER NOT NULL,
    system VARCHAR NOT NULL,        -- etcd or etcray
    seconds DOUBLE NOT NULL,
    requests BIGINT NOT NULL,
    failures BIGINT NOT NULL,
    first_failure VARCHAR NOT NULL,
    requests_per_second DOUBLE NOT NULL,
    latency_ms_p50 DOUBLE,
    latency_ms_p90 DOUBLE,
    latency_ms_p99 DOUBLE,
    latency_ms_p999 DOUBLE,
    latency_ms_max DOUBLE,
    generator_cpu_seconds DOUBLE NOT NULL,
    log_entries BIGINT NOT NULL,    -- of Raft's log within the measured time
    histogram BLOB,                 -- every latency, as the load generator encodes it
    started_at TIMESTAMP NOT NULL
);
CREATE TABLE roles (
    run_id INTEGER NOT NULL, point_id INTEGER NOT NULL, repetition INTEGER NOT NULL,
    role VARCHAR NOT NULL,
    processes INTEGER NOT NULL,
    cpu_seconds DOUBLE NOT NULL,    -- of all of them, within the measured time
    resident_bytes BIGINT NOT NULL  -- of all of them, at its end
);
CREATE TABLE series (
    run_id INTEGER NOT NULL, point_id INTEGER NOT NULL, repetition INTEGER NOT NULL,
    at_seconds DOUBLE NOT NULL,     -- the beginning of the slice
    slice_seconds DOUBLE NOT NULL,
    requests BIGINT NOT NULL,
    failures BIGINT NOT NULL,
    latency_ms_max DOUBLE
);
CREATE TABLE events (
    run_id INTEGER NOT NULL, point_id INTEGER NOT NULL, repetition INTEGER NOT NULL,
    at_seconds DOUBLE NOT NULL,
    name VARCHAR NOT NULL,
    detail VARCHAR NOT NULL
);
CREATE TABLE figures (
    run_id INTEGER NOT NULL, point_id INTEGER NOT NULL, repetition INTEGER NOT NULL,
    name VARCHAR NOT NULL,          -- with its unit
    value DOUBLE NOT NULL
);
CREATE VIEW measurements AS
    SELECT runs.experiment, points.variables, samples.*
    FROM samples JOIN points USING (run_id, point_id) JOIN runs USING (run_id);
"""
