"""A results file as a page, and two of them compared.

    etcray experiment report results.duckdb
    etcray experiment compare before.duckdb after.duckdb -o difference.html

A page is one HTML file without anything outside of it: plots are SVG within the text, so that they are
sharp at any size, can be searched, and follow the reader's choice of a light or a dark page. It is made
from a results file alone; no cluster has to run, and nothing is measured.

What a reader sees
------------------
- For each experiment its question, then plots. The title of a plot says what was found, with numbers that
  are computed from the samples at that moment: no title can be out of date.
- Every figure is a median over the repetitions, with the lowest and the highest as a bar. Where there is
  one repetition only, there is no bar, and nothing can be said about noise.
- Below the plots a table has the same numbers, and every point that failed has its error. Last comes what
  the figures depend on: the machine, its load, versions, the commit.
- Latencies have an axis in which each further nine gets as much room as the one before, as HdrHistogram
  plots it: the tail is where systems differ.

Comparing
---------
Points are the same if experiment, system and variables are equal. The ratio of medians is shown, with the
lowest and the highest ratio that the repetitions admit. A difference is called one only if the repetitions
of the two do not overlap at all, and the medians differ by more than either's repetitions do among
themselves, and by more than 3 %. (Not to overlap is not enough: three and three of the same kind do not in
one of ten cases.) With a single repetition it is never called one.

Plots need matplotlib, which is in the extra `etcray[lab]`. Tables and comparisons on the terminal do not.

    lines         samples as lines of points, by what a plot wants
    percentiles   the distribution of latencies from encoded histograms
    findings      titles: what was found, in one sentence
    plots         lines and distributions as figures
    drawing       matplotlib, and colours that follow the page
    page, style   HTML
    comparison    two results, point by point
    versus        the table and the bar of versus-etcd
"""
