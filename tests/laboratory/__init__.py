"""The laboratory: results, reports, comparisons, sweeps; and that every experiment can be run.

synthetic                made-up measurements with known medians, for what reads results
test_results             a results file: round trip, versions, resuming
test_report              the page has the data, and its titles the right numbers
test_comparison          ratios, spreads and verdicts
test_versus              the bar, and the tables of versus-etcd
test_choices             points, values, options and their errors
test_interrupted         kill -9 in the middle of a sweep, then the rest of it
test_experiments_run     every experiment, at one quick point, on real clusters
test_several_nodes       members and generators on several Ray nodes
"""
