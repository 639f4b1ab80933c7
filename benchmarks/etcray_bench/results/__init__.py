"""What was measured, in one DuckDB file that explains itself.

    duckdb results.duckdb "SELECT experiment, variables, system, median(requests_per_second)
                           FROM measurements GROUP BY ALL ORDER BY ALL"

A results file is the only thing that the report and the comparison read: whoever has the file can make
them again, on another machine, years later. It is a plain DuckDB file; these tables are its contract.

    schema_version   one row: the version of all that follows
    runs             one row per sweep: what was asked, and the environment that it ran in
    points           one row per combination of variables, done or failed; a failed one has its error
    samples          one row per repetition on one system: counts, rate, latencies, the whole histogram
    roles            per sample and role (leader, followers, gateway ...): CPU seconds and resident bytes
    series           per sample: what was answered in each slice of time, for timelines
    events           per sample: faults and other things that happened, with the second at which they did
    figures          per sample: numbers that only some experiments have (a pause, a start); units in the name
    measurements     a view: samples with the experiment and the variables of their points

Rules
-----
- Nothing is summed up on the way in. Every repetition is a row; medians and spreads are made when the
  file is read.
- Times are in UTC, durations in seconds and latencies in milliseconds, as the names say. `at_seconds` of
  series and events begins with the measured time.
- A point and everything that belongs to it is written in one transaction, after the point was measured.
  So a sweep that is killed leaves whole points only, and goes on with those that are missing.
- The file is open only while a point is written: it may be read, copied and reported on during a sweep.
  Two sweeps may write to one file; they wait for each other for some seconds.
- `variables` is JSON with its names in order, so that equal points have equal text.
- The schema's version goes up with every change of a table. A file of a newer version is refused with
  an error that says so; there is no conversion, because old files can be read by the version that wrote
  them, which each run names (`commit`).

    schema        the tables
    store         writing: runs, points, resuming
    reading       everything back, as the objects that report and comparison use
    environment   what a figure depends on besides the code
"""
