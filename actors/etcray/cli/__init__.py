"""The `etcray` command.

    etcray up                       start a cluster here, and watch it; Ctrl-C stops it cleanly
    etcray up --detach              the same in the background
    etcray status | down            look at it, stop it
    etcray resize | move-leader     more or fewer members; another leader
    etcray member ...               list, add, remove, promote, update
    etcray recover                  go on after a majority of the members was lost
    etcray get | put | del | txn    keys and values, with etcdctl's options
    etcray watch                    events as they happen, or a command for each of them
    etcray lease ...                grant, revoke, keep-alive, timetolive, list
    etcray lock | elect             hold a lock while a command runs; take part in an election
    etcray sql                      ask the history of all revisions; without a query, a prompt
    etcray log | diff               what happened to a key; what differs between two revisions
    etcray history ...              status, export as Parquet, restore an old value

What it promises
----------------
- Exit codes: 0 done, 1 the operation failed, 2 the command line makes no sense. Errors go to standard
  error, as one message that says what to do.
- With `--json`, standard output holds JSON and nothing else: one object, or for `up` one for each
  change. Keys and values are text where they are UTF-8; otherwise the text is null and the bytes are in
  `key_base64` and `value_base64`.
- `watch`, `lease keep-alive`, `lock` and `elect` go on until Ctrl-C or SIGTERM, which is no error: what was
  held is released, and the exit code is 0. `lock` with a command ends with the command's exit code, and
  stops the command if the lock is lost. A watch that the server ended is an error, code 1.
- Without `--json`, the commands for keys, leases, locks and elections print what etcdctl prints, bytes
  unchanged, so that scripts can swap one for the other. `get --count-only` prints the count, where
  etcdctl needs `-w fields`.
- These commands are plain etcd clients: they need endpoints, not Ray, and work with a real etcd as
  well; `lock` and `elect` queue with etcdctl's.

How it is built
---------------
    main         the command line: names, options, help; each command imports what it needs
    kv           get, put, del and txn: options to requests, results to output
    watch        one watch, or many in a dialogue; a command for each event
    lease, lock  leases; locks and elections
    interrupts   what goes on until it is told to stop
    txn_grammar  etcdctl's little language for transactions
    output       bytes, text and JSON
    up           a cluster in the foreground or the background
    screen       what `up` shows: a live table on a terminal, lines elsewhere, or JSON
    clusters     status and down
    member       changes of the membership; `membership_commands` has their command line
    recover      a lost majority, offline
    sql          one query; `sql_prompt` many; `tables` prints results in every format
    history      log and diff; `history_export`, `history_restore`, `history_status`; `history_commands` has
                 their command line
    options      what several commands have in common

Importing `main` imports typer and nothing of Ray, DuckDB or gRPC: a `get` is over before Ray would
have been imported.

What it leaves out
------------------
TLS and users are not here yet. etcdctl's own exit codes (5 for a cancelled watch, 128 for a
bad command line) are not copied.
"""
