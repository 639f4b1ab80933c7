"""Whether clients of real and of simulated clusters see one strictly serial store, decided twice.

A history is what clients asked, when, and what they were told, with the complete event stream beside it:

    history            the records: no protobuf, no Ray, so a simulation may hand in its own
    revision_checker   exact and fast, with the revisions as witness
                       (replay: what must have been answered; assignment: who did what nobody was told of;
                       verdict: violations by name)
    search_checker     windows of it, without looking at revisions (plain_model: the store)
    random_histories   a naive store, right or broken on purpose: what the checkers are tested with
    speed              how long a million operations take: python -m tests.consistency.speed

Real clusters make histories:

    recorder           clients and the watch of everything (mix: what they ask; clients: gRPC at little cost;
                       messages: etcd's)
    running            a cluster in a process of its own (cluster_process, faulty_member,
                       faulty_streams)
    faults             what is done to it (fault_files, faulty_disk.c)
    dumps              whether all members hold the same, byte for byte
    campaign           one history under faults: python -m tests.consistency
    test_mistakes      campaigns whose members make a mistake, which has to be found
    kill_cycles        all members' dumps after each kill: python -m tests.consistency.kill_cycles
"""
