"""The lists of the hostile corpus, one statement on each line; `hostile` says what becomes of them."""

from __future__ import annotations

from typing import Final

STATEMENTS: Final = """
ATTACH '@OUT' AS a
ATTACH ':memory:' AS a
ATTACH '@TAIL' AS a (READ_ONLY)
ATTACH IF NOT EXISTS '@OUT' AS a (TYPE duckdb)
DETACH memory
DETACH DATABASE IF EXISTS temp
USE store
USE memory.store
CONNECT '@TAIL'
CREATE TABLE a (b INTEGER)
CREATE TEMP TABLE a AS SELECT * FROM range(10)
CREATE TEMPORARY VIEW kv AS SELECT 1
CREATE OR REPLACE VIEW history AS SELECT 1
CREATE OR REPLACE MACRO kv_at(revision) AS TABLE SELECT 1
CREATE MACRO main.abs(a) AS 'x'
CREATE TEMP MACRO octet_length(a) AS 0
CREATE FUNCTION f(a) AS a + 1
CREATE TYPE mood AS ENUM ('a')
CREATE SCHEMA s
CREATE SEQUENCE q
CREATE INDEX i ON history (key)
CREATE TRIGGER t AFTER INSERT ON history FOR EACH ROW SELECT 1
CREATE SECRET s (TYPE s3, KEY_ID 'a', SECRET 'b')
CREATE PERSISTENT SECRET s IN local_file (TYPE http)
CREATE TABLE a AS FROM read_text('/etc/passwd')
DROP VIEW history
DROP SCHEMA store CASCADE
DROP TABLE store.tail
DROP MACRO TABLE kv_at
DROP SECRET s
ALTER VIEW history RENAME TO h
ALTER TABLE kv ADD COLUMN c INTEGER
COMMENT ON VIEW kv IS 'x'
TRUNCATE history
SET memory_limit = '100GB'
SET GLOBAL max_execution_time = 0
SET threads = 64
SET lock_configuration = false
SET enable_external_access = true
SET allowed_paths = ['/']
SET allowed_directories = ['/']
SET temp_directory = '@OUT'
SET schema = 'store'
SET search_path = 'store,main'
SET VARIABLE a = 1
SET SESSION python_enable_replacements = true
SET log_query_path = '@OUT'
SET TimeZone = 'Asia/Tokyo'
RESET memory_limit
RESET ALL
RESET lock_configuration
PRAGMA database_list
PRAGMA version
PRAGMA show_tables
PRAGMA table_info('kv')
PRAGMA memory_limit = '100GB'
PRAGMA enable_profiling = 'json'
PRAGMA profiling_output = '@OUT'
PRAGMA disable_checkpoint_on_shutdown
PRAGMA enable_logging
PRAGMA user_agent
CALL pragma_version()
CALL duckdb_settings()
CALL enable_logging(storage_path = '@OUT')
CALL force_checkpoint()
CALL dbgen(sf = 1)
CHECKPOINT
FORCE CHECKPOINT
VACUUM ANALYZE
ANALYZE
EXPORT DATABASE '@OUT'
EXPORT DATABASE '@OUT' (FORMAT parquet)
IMPORT DATABASE '@STORE'
INSTALL httpfs
INSTALL httpfs FROM community
FORCE INSTALL httpfs FROM 'http://127.0.0.1:1/'
LOAD httpfs
LOAD '@SECRET'
UPDATE EXTENSIONS
BEGIN TRANSACTION
BEGIN TRANSACTION READ ONLY
COMMIT
ROLLBACK
ABORT
PREPARE p AS SELECT 1
EXECUTE p
EXECUTE IMMEDIATE 'SELECT 1'
DEALLOCATE p
SHOW DATABASES
SHOW VARIABLES
SHOW memory_limit
SHOW TABLES FROM store
DESCRIBE store.tail
DESCRIBE '@SECRET'
SUMMARIZE '@PART'
SUMMARIZE store.rows
DESCRIBE TABLE '@SECRET'
EXPLAIN COPY kv TO '@OUT'
EXPLAIN ANALYZE CREATE TEMP TABLE a AS SELECT 1
EXPLAIN ANALYZE DELETE FROM store.tail
EXPLAIN (ANALYZE, FORMAT json) DELETE FROM store.tail
EXPLAIN EXPLAIN ANALYZE DELETE FROM store.tail
EXPLAIN PRAGMA version
EXPLAIN ANALYZE ATTACH '@OUT' AS a
"""
"""Not a query at all."""

SEVERAL: Final = r"""
SELECT 1; SELECT 2
SELECT 1; DROP VIEW kv
SELECT 1;; ;DELETE FROM history
; DROP VIEW kv; SELECT 1
SELECT 1 /* ; */ ; SET threads = 4
SELECT ';' ; CHECKPOINT
SELECT 1 -- one \n; CHECKPOINT
BEGIN; SELECT 1; COMMIT
SELECT $$ ; $$; ATTACH ':memory:' AS a
SELECT 1; SELECT * FROM read_text('/etc/passwd')
PIVOT kv ON op; DROP VIEW kv
FROM kv; COPY kv TO '@OUT'
EXPLAIN SELECT 1; DELETE FROM history
SELECT "a;b" FROM (SELECT 1 AS "a;b"); CHECKPOINT
"""

FILES: Final = r"""
SELECT * FROM '@SECRET'
SELECT * FROM '@PART'
FROM '@PART'
FROM "@PART"
FROM '@STORE/parts/*.parquet'
FROM 'file:@PART'
FROM 'file://@SECRET'
FROM 'http://127.0.0.1:1/a.parquet'
FROM 'https://127.0.0.1:1/a.csv'
FROM 's3://a/b.parquet'
FROM 'hf://datasets/a/b.csv'
FROM '/etc/passwd'
FROM '/proc/self/environ'
FROM '/proc/self/mem'
FROM '/dev/zero'
FROM '../../../etc/passwd'
FROM 'a.csv'
FROM 'a.json'
FROM "a.parquet"
FROM kv, '@SECRET'
SELECT * FROM kv JOIN '@PART' p USING (key)
SELECT (SELECT count(*) FROM '@SECRET')
SELECT * FROM kv WHERE key IN (FROM '@SECRET')
WITH "@SECRET" AS (SELECT * FROM "@SECRET") SELECT 1
WITH "@PART" AS MATERIALIZED (FROM "@PART") FROM "@PART"
WITH RECURSIVE "/etc/passwd" AS (SELECT 1 UNION ALL FROM "/etc/passwd") SELECT 1
WITH a AS (FROM "/etc/passwd"), "/etc/passwd" AS (SELECT 1) FROM a
WITH a AS (WITH "/etc/passwd" AS (SELECT 1) SELECT 1) FROM "/etc/passwd"
TABLE '@SECRET'
TABLE "@PART"
DESCRIBE FROM '@SECRET'
SUMMARIZE FROM '@PART'
SELECT * FROM read_text('@SECRET')
SELECT * FROM read_blob('@SECRET')
SELECT * FROM read_blob('@TAIL')
SELECT * FROM read_csv('@SECRET')
SELECT * FROM read_csv_auto('@SECRET')
SELECT * FROM read_json('@SECRET')
SELECT * FROM read_json_auto('@SECRET')
SELECT * FROM read_json_objects('@SECRET')
SELECT * FROM read_ndjson('@SECRET')
SELECT * FROM read_ndjson_objects('@SECRET')
SELECT * FROM read_parquet('@PART')
SELECT * FROM read_parquet(['@PART', '/etc/passwd'])
SELECT * FROM parquet_scan('@PART')
SELECT * FROM parquet_metadata('@PART')
SELECT * FROM parquet_schema('@PART')
SELECT * FROM parquet_file_metadata('@PART')
SELECT * FROM parquet_kv_metadata('@PART')
SELECT * FROM parquet_full_metadata('@PART')
SELECT * FROM parquet_bloom_probe('@PART', 'key', 'a')
SELECT * FROM sniff_csv('@SECRET')
SELECT * FROM glob('/*')
SELECT * FROM glob('@STORE/**')
SELECT * FROM read_duckdb('@TAIL')
SELECT * FROM iceberg_scan('@PART')
SELECT * FROM delta_scan('@STORE')
SELECT * FROM sqlite_scan('@SECRET', 'a')
SELECT * FROM postgres_scan('host=127.0.0.1', 'a', 'b')
SELECT * FROM st_read('@SECRET')
SELECT * FROM READ_TEXT('/etc/passwd')
SELECT * FROM "read_text"('/etc/passwd')
SELECT * FROM main.read_text('/etc/passwd')
SELECT * FROM system.main.read_text('/etc/passwd')
SELECT * FROM read_text/**/('/etc/passwd')
SELECT * FROM read_text(E'/etc/passw\\x64')
SELECT * FROM read_text('/etc/' || 'passwd')
SELECT * FROM read_text($$/etc/passwd$$)
SELECT * FROM kv, read_text('/etc/passwd')
SELECT * FROM kv, LATERAL read_text(key_text)
SELECT (SELECT max(content) FROM read_text('/etc/passwd'))
SELECT * FROM range((SELECT count(*) FROM read_text('/etc/passwd')))
FROM kv_at((SELECT count(*) FROM glob('/*')))
FROM kv_at((SELECT 1 FROM '@SECRET'))
FROM history_of((SELECT max(content) FROM read_text('@SECRET')))
SELECT * FROM kv ORDER BY (SELECT max(content) FROM read_text('@SECRET'))
SELECT count(*) FILTER (WHERE EXISTS (FROM read_text('@SECRET'))) FROM kv
SELECT * FROM kv LIMIT (SELECT count(*) FROM glob('/*'))
SELECT * FROM kv QUALIFY row_number() OVER (ORDER BY (SELECT 1 FROM '@SECRET')) = 1
SELECT * FROM kv TABLESAMPLE 10 PERCENT, '@SECRET'
SELECT sum(1) OVER (PARTITION BY (SELECT 1 FROM '@SECRET')) FROM kv
SELECT list_transform([1], x -> (SELECT max(content) FROM read_text('@SECRET')))
SELECT CASE WHEN true THEN (SELECT content FROM read_text('@SECRET')) END
VALUES ((SELECT content FROM read_text('@SECRET')))
SELECT * FROM (VALUES (1)) t(a) JOIN read_text('@SECRET') ON true
SELECT COLUMNS(*) FROM read_text('@SECRET')
PIVOT '@PART' ON key USING count(*)
PIVOT read_text('@SECRET') ON filename USING max(content)
UNPIVOT '@SECRET' ON COLUMNS(*)
FROM (PIVOT '@SECRET' ON a USING count(*))
SELECT 1 EXCEPT (FROM '@SECRET')
SELECT * FROM kv POSITIONAL JOIN '@SECRET'
SELECT * FROM kv ASOF JOIN '@SECRET' s ON kv.version >= s.a
SELECT * FROM kv SEMI JOIN '@SECRET' s USING (key)
"""
"""A file's name where a table's should be, and functions that read files, everywhere that a query can be."""

INTERNALS: Final = """
SELECT * FROM store.rows
SELECT * FROM store.tail
SELECT * FROM memory.store.tail
SELECT * FROM "store"."rows"
SELECT * FROM STORE.Tail
SELECT * FROM arrow_tail
SELECT * FROM temp.arrow_tail
SELECT * FROM system.information_schema.tables
SELECT * FROM information_schema.tables
SELECT * FROM information_schema.schemata
SELECT * FROM pg_catalog.pg_class
SELECT * FROM pg_class
SELECT * FROM pg_settings
SELECT * FROM sqlite_master
SELECT * FROM sqlite_schema
SELECT * FROM main.kv
SELECT * FROM memory.main.kv
SELECT * FROM memory.kv
SELECT * FROM duckdb_settings()
SELECT * FROM duckdb_secrets()
SELECT * FROM duckdb_views()
SELECT * FROM duckdb_views
SELECT * FROM duckdb_tables()
SELECT * FROM duckdb_databases()
SELECT * FROM duckdb_functions()
SELECT * FROM duckdb_extensions()
SELECT * FROM duckdb_logs()
SELECT * FROM duckdb_memory()
SELECT * FROM duckdb_temporary_files()
SELECT * FROM duckdb_external_file_cache()
SELECT * FROM duckdb_prepared_statements()
SELECT * FROM duckdb_variables()
SELECT * FROM duckdb_columns()
SELECT * FROM duckdb_dependencies()
SELECT * FROM pragma_database_list()
SELECT * FROM pragma_show('kv')
SELECT * FROM pragma_table_info('kv')
SELECT * FROM pragma_storage_info('history')
SELECT * FROM pragma_database_size()
SELECT * FROM pragma_version()
SELECT * FROM pragma_platform()
SELECT * FROM pragma_user_agent()
SELECT * FROM pragma_metadata_info()
SELECT * FROM pragma_last_profiling_output()
SELECT * FROM query('SELECT 1')
SELECT * FROM query('FROM read_text(''/etc/passwd'')')
SELECT * FROM query_table('kv')
SELECT * FROM query_table(['kv', '@SECRET'])
SELECT * FROM query_table('store.tail')
SELECT * FROM json_execute_serialized_sql(json_serialize_sql('SELECT 1'))
SELECT json_serialize_sql('SELECT 1')
SELECT json_serialize_plan('SELECT 1')
SELECT json_deserialize_sql('{}')
SELECT * FROM arrow_scan(1, 2, 3)
SELECT * FROM arrow_scan_dumb(1, 2, 3)
SELECT * FROM pandas_scan(1)
SELECT * FROM python_map_function(1)
SELECT * FROM seq_scan('kv')
SELECT * FROM repeat(1, 5)
SELECT * FROM repeat_row(1, num_rows = 5)
SELECT * FROM test_all_types()
SELECT * FROM test_vector_types(NULL::INTEGER)
SELECT * FROM summary((FROM kv))
SELECT * FROM checkpoint()
SELECT * FROM force_checkpoint()
SELECT * FROM enable_logging()
SELECT * FROM enable_profiling()
SELECT * FROM icu_calendar_names()
SELECT * FROM pg_timezone_names()
SELECT * FROM sql_auto_complete('SEL')
SELECT * FROM which_secret('@SECRET', 'http')
SELECT * FROM load_aws_credentials()
SELECT * FROM read_sheet('a')
SELECT getenv('HOME')
SELECT GETENV('PATH')
SELECT "getenv"('HOME')
SELECT main.getenv('HOME')
SELECT current_setting('memory_limit')
SELECT current_setting('allowed_paths')
SELECT system.main.current_setting('memory_limit')
SELECT getvariable('a')
SELECT current_query()
SELECT current_database()
SELECT current_schema()
SELECT current_schemas(true)
SELECT in_search_path('main', 'store')
SELECT txid_current()
SELECT nextval('q')
SELECT currval('q')
SELECT set_config('a', 'b', true)
SELECT pg_sleep(100)
SELECT sleep_ms(100000)
SELECT write_log('a')
SELECT parse_path('@SECRET'), file_exists('@SECRET')
SELECT is_histogram_other_bin(1)
SELECT add_parquet_key('a', 'b')
SELECT setseed(0.5)
SELECT error('x')
SELECT stats(1)
SELECT vector_type(1)
SELECT pg_get_viewdef('kv')
SELECT pg_get_constraintdef(1)
SELECT col_description(1, 1)
SELECT has_table_privilege('kv', 'select')
SELECT getenv(key_text) FROM kv
SELECT list_transform(['HOME'], x -> getenv(x))
SELECT [getenv(x) FOR x IN ['HOME']]
SELECT 'HOME'.getenv()
SELECT struct_pack(a := getenv('HOME'))
SELECT max(getenv('HOME')) OVER () FROM kv
SELECT list_aggregate(['a'], 'getenv')
SELECT * FROM kv WHERE getenv('HOME') LIKE '/%'
SELECT * FROM kv ORDER BY getenv('HOME')
SELECT * FROM kv GROUP BY ALL HAVING getenv('HOME') = 'x'
SELECT * REPLACE (getenv('HOME') AS key) FROM kv
SELECT known_revision(3)
SELECT store.known_revision(3)
SELECT store.known_time_revision(1)
SELECT secret_of_the_caller FROM secret_of_the_caller
SELECT * FROM secret_of_the_caller
SELECT * FROM relations
SELECT * FROM self
SELECT * FROM tables
SELECT * FROM __main__
SELECT * FROM df
SELECT * FROM kv AT (VERSION => 3)
SELECT * FROM kv AT (TIMESTAMP => now())
SELECT * FROM history AT (VERSION => (SELECT 1 FROM '@SECRET'))
"""
"""What is behind the tables, DuckDB's own catalog and settings, the process's environment and variables."""

TRICKS: Final = r"""
SELECT * FROM /* kv */ read_text('/etc/passwd')
SELECT * FROM read_text -- kv \n ('/etc/passwd')
/* SELECT */ COPY kv TO '@OUT'
-- SELECT 1 \n COPY kv TO '@OUT'
   \t\n  COPY kv TO '@OUT'
/**/COPY/**/kv/**/TO/**/'@OUT'
(COPY kv TO '@OUT')
cOpY kv tO '@OUT'
EXPLAIN/**/ANALYZE COPY kv TO '@OUT'
EXPLAIN /* a */ COPY kv TO '@OUT'
explain analyze copy kv to '@OUT'
EXPLAIN\nANALYZE\nDELETE FROM store.tail
/* a */ EXPLAIN ANALYZE DELETE FROM store.tail
EXPLAIN ANALYZE WITH x AS (DELETE FROM history RETURNING *) FROM x
EXPLAIN WITH x AS (COPY kv TO '@OUT') FROM x
EXPLAIN ANALYZE ANALYZE SELECT 1
EXPLAIN ANALYZE (WITH x AS (COPY kv TO '@OUT') FROM x)
EXPLAIN SELECT * FROM read_text('@SECRET')
EXPLAIN ANALYZE SELECT * FROM '@SECRET'
SELECT * FROM "kv\x00/etc/passwd"
SELECT * FROM "kv/../../../etc/passwd"
SELECT * FROM "KV.parquet"
SELECT * FROM "\u202ekv"
SELECT * FROM \uff4b\uff56
SELECT * FROM "kv\u200b"
SELECT * FROM k\u0301v
SELECT \u00a0 * FROM '\u2215etc\u2215passwd'
SELECT * FROM U&"\\006bv"
SELECT $x$ $x$ FROM '@SECRET'
SELECT * FROM kv; -- \n DROP VIEW kv
WITH kv AS (FROM '@SECRET') FROM kv
WITH history AS (FROM store.tail) FROM history
WITH kv_at AS (FROM '@SECRET') FROM kv_at
WITH range AS (FROM read_text('@SECRET')) FROM range
WITH x(a) AS (FROM '@SECRET') FROM x
WITH x AS (FROM y), y AS (SELECT 1) FROM '@SECRET'
WITH "a.b" AS (SELECT 1) FROM "a.b"
WITH "" AS (SELECT 1) FROM ""
WITH "store" AS (SELECT 1) FROM store.tail
FROM kv SELECT * EXCLUDE (key), (FROM '@SECRET')
FROM kv()
FROM history()
FROM kv_at
FROM kv_at(1, 2, 3)
FROM kv_at('x; DROP VIEW kv')
FROM kv_at(revision := (SELECT 1 FROM '@SECRET'))
FROM kv_as_of('not a time')
FROM changes(1)
FROM store.kv_at(1)
FROM main.kv_at(1)
FROM history_of('/a/1', 'x')
FROM prefixes(1, 2)
SELECT kv_at(1)
SELECT (kv_at(1))
SELECT unnest(kv_at(1))
SELECT $1
SELECT $name
SELECT ?
SELECT 1::nothing
SELECT CAST('@SECRET' AS "/etc/passwd")
SELECT 'a'::REGCLASS
SELECT 'kv'::regclass::oid
SELECT * FROM kv WHERE key = ANY(FROM '@SECRET')
SELECT DISTINCT ON ((FROM '@SECRET')) * FROM kv
SELECT * FROM kv USING SAMPLE reservoir((SELECT 1 FROM '@SECRET') ROWS)
SELECT sum(version) OVER (ORDER BY key ROWS (SELECT 1 FROM '@SECRET') PRECEDING) FROM kv
PIVOT kv ON key USING first(getenv('HOME'))
PIVOT (FROM kv) ON (SELECT 1 FROM '@SECRET') USING count(*)
FROM kv |> WHERE read_text('/etc/passwd')
FROM ONLY '@SECRET'
SELECT
;
\x00
SELECT \x00 1
\ufeffSELECT * FROM read_text('/etc/passwd')
"""
"""Comments, quotes, capitals, look-alikes, shadowed names, and arguments where none belong."""

HARMLESS_STATEMENTS: Final = """
SELECT 'read_text(''/etc/passwd'')' AS a, '; DROP VIEW kv; --' AS b
SELECT 1 AS "'; COPY kv TO '@OUT'; --"
SELECT * FROM kv WHERE key_text = '; DELETE FROM history'
SELECT version(), typeof(1)
WITH kv AS (SELECT 1 AS a) SELECT * FROM kv
WITH history AS (SELECT * FROM kv) SELECT count(*) FROM history
SELECT /* DELETE FROM history */ 1
SELECT 1 -- ; DELETE FROM history
SELECT * FROM kv_at(1) WHERE false
EXPLAIN ANALYZE SELECT * FROM kv
DESCRIBE kv
SHOW TABLES
FROM kv_at((SELECT max(mod_revision) FROM history))
SELECT * FROM range((SELECT 3))
SELECT 1/0, 0/0, try_cast(1e308 AS FLOAT)
SHOW ALL TABLES
SELECT current_user
SELECT session_user
SELECT current_catalog
SELECT * FROM kv /* /* */ FROM '@SECRET' */
SELECT 1 FROM kv WHERE key_text = '' OR 1 = 1; --
FROM prefixes(NULL::MAP(INTEGER, INTEGER))
SELECT * FROM kv WINDOW w AS (ORDER BY (SELECT 1 FROM '@SECRET'))
FROM kv SELECT # 1
"""
"""They look like attacks, and are questions. (Some are what a careless check would refuse.)"""
