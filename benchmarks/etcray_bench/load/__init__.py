"""The load generator: drives anything that speaks the etcd v3 API, and checks what it wrote.

    from etcray_bench.load import Load, run_load
    result = run_load(Load(endpoints=["127.0.0.1:2379"], workload="put", clients=64))

The generator must not be what is measured
------------------------------------------
It runs on the same few cores as the servers, so it has to be cheap: a call through grpcio costs a
client some hundred microseconds of CPU, more than a gateway may spend on serving it. `frames` and
`connection` therefore write prepared bytes with a stream number filled in, and look at an answer only
as far as its frames.

    frames, connection   HTTP/2 as cheap as it gets
    streaming            streams that stay open, on the same connections
    workloads            what is sent, and what must be there afterwards
    closed_loop          one load: run, measure, check
    watch_decoding       watch responses, as far as they have to be looked at
    watch_load           one load with watchers: run, measure, check
    watch_idle           the memory of idle watchers
"""

from etcray_bench.load.closed_loop import CheckFailedError, Load, LoadResult, run_load

__all__ = ["CheckFailedError", "Load", "LoadResult", "run_load"]
