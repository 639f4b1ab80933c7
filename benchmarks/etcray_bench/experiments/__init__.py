"""Questions about a real consensus system, each answered by one command.

    etcray experiment list
    etcray experiment run clients --quick
    etcray experiment run members --set members=1,3 --set clients=64 --results mine.duckdb
    etcray experiment report mine.duckdb -o mine.html
    etcray experiment versus-etcd --markdown

An experiment is a question, the variables that it depends on, and what to do at one point. It is declared
in a file of its own (`members`, `clients`, ...), which says nothing about starting clusters, repeating,
storing or drawing: `sweep` does the first three, `etcray_bench.report` the last.

How a sweep goes
----------------
- The points are all combinations of the variables' values. The variables are in an order: those that need
  another cluster come first, so that as many points as possible share one (equal `SystemSpec`s do).
- The values of a variable that is `in_turns` (a transport, a system) are compared with each other, so they
  run side by side: all their clusters are up, and each repetition goes through all of them before the next
  one begins. A slow minute of the machine then hits all of them.
- After each point (or group of points in turns) everything about it is written to the results file. A sweep
  that was interrupted goes on when the same command is given again; nothing is measured twice.
- A point that fails is stored with its error, its clusters are stopped, and the sweep goes on.
- The store is checked after each load, so that a figure is never about data that is not there.

How to add one
--------------
Write a subclass of `Experiment` in a new module here, and name the module in `registry`. Most need only
`variables`, `spec`, `load` and `plots`; one that measures something else than a load overrides `measure`. The
test that every experiment can be run picks it up by itself.

    experiment    what an experiment is
    sweep         points, repetitions, resuming
    progress      what is shown meanwhile
    measuring     one load on one system, as a sample
    registry      all experiments by name
    pauses        writers that notice when they are not served
    and one module per question
"""
