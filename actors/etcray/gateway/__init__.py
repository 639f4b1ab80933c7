"""The gateway: etcd's API on one port, in front of members that know nothing of clients.

What it promises
----------------
Any etcd v3 client works: gRPC over HTTP/2 for the API, plain HTTP/1.1 or 2 for the same API as JSON and
for /health, /livez, /readyz, /version and /sql, told apart by a connection's first bytes. Errors have etcd's
codes and texts, transport errors those of grpc-go. A write is applied exactly once, also when the leader
dies while it is on its way, and the client does not notice more than a delay. A linearizable read sees
every write that was answered before it was sent. A gateway keeps nothing that matters: it may die at any
moment, and clients go to another one.

How a request travels
---------------------
1. `http_engine` turns bytes into streams, `grpc` (with `framing`) turns a stream into a call of a
   handler with the request's bytes. `http1_engine` and `plain_receiver` make plain requests, which
   `http_routes` answers or gives to `json_gateway`; that calls the same handlers, with messages that
   `json_codec` made of JSON. A `websocket` does so too, with messages that go both ways at any time.
   `listener` holds the sockets. There is no task for a connection, and none for a put, a range, a
   transaction: those are answered from a callback. Other calls have one task each.
2. The service (`kv`, `lease`, `watch`, `lock`, `election`, `cluster`, `maintenance`, `health`) decodes the
   request once, checks what can be checked without the store, and gives the client's own bytes to the
   `dispatcher`. Response bytes come back as they are; only the header is put in front.
3. `proposals`, `reads` and `keep_alives` (with `gathering`) collect what arrived during one turn of the
   event loop, and what arrives while batches are on their way, into one batch; `delivery` decides which
   member it goes to, and when it has to go again. These are pure: time is given to them, so a simulator
   can run them.
4. `dispatcher` performs the sends over a `MemberChannel`; `actor` implements that with Ray calls.
   One call carries a batch of up to 2,048 commands, because a Ray call costs as much CPU as 60 requests.

Exactly once (`proposals`): a batch is named by session and sequence and never changes, so it can be sent to
anybody any number of times. Batching (`gathering`): the first request leaves at once; few clients go in
lock-step, many in two halves; and a batch waits a moment for the clients that were just answered. Without
that moment 8 clients over real members fall into two halves that take turns, for twice the calls: 250-350
puts a second in place of 380-660, on a loaded machine and in alternating runs. A second batch beside the
first pays when it carries 192 commands. Measured in real clusters, two cores, five to six runs of each in
turns, puts of 256 bytes over Ray, against a bound of 64: 128 clients 1.27 times the rate, 192 clients 1.09,
256 clients 1.13 with 0.82 of the CPU for a put, 512 and more the same. A bound of 32 gives 64 clients 0.77
of the rate, one of 512 gives 512 clients 0.86. (A model of the same rule had preferred 64: it knew nothing
of caches.) Over streams the bound matters little: 0.93 of the CPU and the same rate. A linearizable read
costs no log, and 256 clients' reads lose a tenth with the higher bound; theirs stays at 64.

Finding the leader (`delivery`): answers name it. When a call fails, or nothing was heard for 250 ms, all
members are asked for their status, and only a leader in a term at least as high as the last one counts.
A Ray call has no time-out and may hang for seconds after its target died: it is simply left behind.

What it costs, and why this HTTP library
----------------------------------------
Unary calls of 256 B puts over 8 connections with 32 streams each, CPU of the serving process per call,
on two busy cores (Python 3.11, uvloop):

    library's own server (a task per connection and per stream, three events and a queue per stream)  34 us
    this engine over the library's sans-I/O state, with gRPC framing, deadline and routing on top     25 us
    everything: plus decoding, checking, batching and answering a Put                              35-55 us
    the same without a task, a future and collections of garbage for each call                     19-28 us

Of the last, 11 us are this package's own code with the library's; the rest is reading, writing and waiting
for sockets. With Ray's calls and its threads a put at a real gateway
cost 50 us with 256 clients and 99 us with 64, on a very loaded machine. A Ray call costs 1.0 to 1.4 ms here,
whatever it carries up to 75 kB, and as much at the member: Ray's I/O thread 0.5 ms, `remote()` on the event
loop 0.2-0.3, its gRPC threads 0.2, the kernel a third of all. Tried, and not worth it: Ray's own callback in
place of awaiting the reference (3-8 % of a call, but a private method); another `sys.setswitchinterval` (no
difference).

Before, `grpc.aio` took 370 us for an echo, pure Python h2 195 us. `httpunk` mirrors Rust's hyper and h2, with
their limits on resets and header floods; `zttp` is faster still (28 against 55 us for an echo of both as
shipped) and says of itself that it is not for production. `httpunk` is used below its public server: the
class `H2Streams` is the whole protocol as one object (bytes and decisions in, bytes and verdicts out). It
is a private module of the library, so the dependency is pinned to one minor version, and only
`http_engine` knows it. All answers of one turn of the event loop leave in one write.

Limits
------
All are in `etcray_storage.limits`. Over them: a message above 2 MiB is RESOURCE_EXHAUSTED from the transport;
a request above 1.5 MiB is etcd's "request is too large"; over 20,000 waiting commands or reads "too many
requests"; a further stream of a connection waits at the client; a further connection is closed. A client
that does not read its answers is not read from either. Nothing waits longer than 7 seconds, etcd's own
time-out.

Watches
-------
A gateway has one stream of events (`watch_feed` asks the leader for them, with a call that waits), however
many watchers there are. `watch_hub` matches each batch through an index by key range (`watch_index`) and
puts it into the streams' queues (`watch_stream`); events are encoded once, by the member, and shared
(`watch_responses`). Watchers that start in the past, or whose client did not read, are brought up to the
hub's position by reads of history (`watch_catch_up`). All but the feed is pure. Events are only ever of
applied entries, so they are durable on a majority before anybody sees them.

Measured for the hub alone: 0.6 million events a second to 100 or 1,000 watchers when events come one by
one, 12 million in batches of 30; 450 to 510 bytes for an idle watcher that has a range of its own, of
100,000; 1.3 to 2 microseconds to find an event's watchers among them.

What differs from etcd: several revisions may come in one response, also live; a transaction never comes
in two. A watcher from now on starts behind the highest revision that this gateway has told anybody. A
watcher that fell behind a compaction is still served if its events are in the gateway's memory.

SQL
---
`POST /sql` goes to the history actor (`sql`), not to a member, and is etcray's own. Its answer may be large:
JSON is made of it in a thread (`sql_json`), Arrow is sent as it came, as fast as the client reads. While the
history is away the answer is 503, and nothing else here depends on it.

Locks and elections
-------------------
The services `lock` and `election` are a recipe over keys, leases and watches (`waiting_line`), which any
client could follow itself; they use the handlers of the other services, never the store. A caller that
leaves while it waits, or before it has heard of its place, gives the place up. That is why a client of
HTTP/1.1 that only half-closes has one second for its answer: it cannot be told from one that left.

What differs from etcd
----------------------
- A campaign whose lease ended while it waited fails ("election: not leader"); etcd reports it as won.
- A watch of a lock's waiter that falls behind a compaction begins anew; in etcd the call fails.
- JSON: standard and URL-safe base64 are read (etcd 3.5 reads the former only). Over plain HTTP a stream's
  requests are read completely before it begins; on a WebSocket they may come at any time.
- WebSocket: an unknown path is refused with 404 before the upgrade (etcd accepts, then sends the text);
  malformed JSON ends the stream with an error; a JSON value may not be spread over several messages.
- A gateway is no member. Maintenance.Status, Hash and HashKV show the leader whichever gateway is asked,
  MoveLeader is sent on to it, and Defragment is done by all members, one after the other. Every member's
  client URLs are the gateways'.
- Peer URLs `ray://CLUSTER/NAME` are taken besides etcd's: that is what members of ours are called.
- No keepalive policing: pings are answered, however many. Dead clients are found by TCP keepalive.
- Answers that a client asked for and does not read stay in memory until it reads, resets or leaves: their
  number is bounded by its streams, their size is not, as in etcd.
- A client that leaves does not take back a command that was sent: it may be applied, and nobody is told.
- The health service stays SERVING as long as the gateway lives; /health asks the cluster.
- HTTP/1.1 pipelining works for requests without a body only.
- Not here yet, and answered UNIMPLEMENTED: auth, snapshots, downgrades. TLS is not here either.
"""
