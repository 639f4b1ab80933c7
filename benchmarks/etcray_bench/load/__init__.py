"""The load generator: drives anything that speaks the etcd v3 API, and checks what it wrote.

    etcray bench put --clients 64 --value-size 256
    etcray bench ycsb-a --rate 2000 --processes 2 --endpoints 10.0.0.1:2379,10.0.0.2:2379

    from etcray_bench.load import Load, run_load
    result = run_load(Load(endpoints=("127.0.0.1:2379",), workload="put", clients=64))

The generator must not be what is measured
------------------------------------------
It runs on the same few cores as the servers, so it has to be cheap: a call through grpcio costs a
client some hundred microseconds of CPU, more than a gateway may spend on serving it. `frames` and
`connection` write prepared bytes with a stream number filled in; `messages` prepares whole requests, with
places for keys, stamps and revisions. A put costs 8 to 12 us of CPU and a read, with its value compared,
13 to 18 us when a server keeps it busy (`python -m etcray_bench.load.responder` measures it); it is more
when answers come one by one. Every result names the generator's own share. HPACK is used as real clients
use it (a table that both sides keep), so that servers do the work that real clients cause.

What a figure means
-------------------
- Closed loop: N logical clients, each with one operation under way, on a few connections. The rate and the
  latency belong together (clients = rate x latency); a closed loop says nothing about what happens to
  requests that come at their own pace.
- Open loop (`rate`): operations are meant to begin at moments of a schedule, even or Poisson, that knows
  nothing of the store. Latency runs from that moment, so that a pause of the store is in every operation
  that it delayed, and not only in those that were under way (coordinated omission). The service time, from
  the sending, is reported beside it. What is still waiting for a client at the end counts with its wait.
- An operation may be several requests (a read-modify-write, a list in pages): its latency is that of all.
- Nothing counts before the warm-up is over.

What is checked
---------------
Every value begins with a stamp: key, writer, and the writer's sequence number; the rest is known filler.
The `ledger` knows from the answers' revisions who wrote each key last, however many did at once, and how
often. During the run every value that is read must be one that was written to that key, and a linearizable
read must not be older than what was acknowledged before it began. After the run every key is read: value,
revision and version (etcd's own counter of writes) must be the ledger's, and no key may be there that
nobody wrote. Granted leases live, revoked ones do not, and their keys are gone. Watchers get every change
once, in order. Speed without the data being there is no result: a difference raises `CheckFailedError`.
With `tolerate_failures`, a write without an answer may have happened or not, and both are accepted.

What it leaves out: TLS, authentication, watchers that are slow or begin in the past.

    options              what a load is; all that can vary
    frames, connection   HTTP/2 as cheap as it gets
    streaming            streams that stay open, on the same connections
    keys, messages       which key comes next, values, and requests as prepared bytes
    operations           what one operation asks and what its answers must say, as a generator
    workloads            which operations in which shares: simple ones, YCSB, leases
    kubernetes           what an API server does, with watchers
    watch_load           one load whose point is the watchers; watch_decoding: their responses
    arrivals, driver     when operations begin; closed loop, open loop, lost connections
    recorder, latency    what is noted in the run, and HDR histograms of it
    ledger, check        what must be in the store, and whether it is
    bulk                 what is done before and after: empty, preload, revoke
    run, processes       one load from beginning to end, in one process or several
    result, show         what came out, and how the command prints it
    responder            a server that costs nothing: measures the generator
    watch_idle           the memory of idle watchers
"""

from etcray_bench.load.check import Checked
from etcray_bench.load.errors import CheckFailedError, ConnectError, LoadError
from etcray_bench.load.latency import Latency
from etcray_bench.load.options import WORKLOADS, Load
from etcray_bench.load.result import LoadResult, OperationResult, Series
from etcray_bench.load.run import Part, Prepared, Progress, conclude, prepare, run_load, run_part

__all__ = [
    "WORKLOADS",
    "CheckFailedError",
    "Checked",
    "ConnectError",
    "Latency",
    "Load",
    "LoadError",
    "LoadResult",
    "OperationResult",
    "Part",
    "Prepared",
    "Progress",
    "Series",
    "conclude",
    "prepare",
    "run_load",
    "run_part",
]
