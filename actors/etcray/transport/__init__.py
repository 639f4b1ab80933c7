"""Members, gateways and the history talk over sockets, without Ray in between: `--transport direct`.

Why it exists
-------------
A Ray call costs about half a millisecond of CPU on either side, whatever it carries, and a put takes three
of them one after the other. This is the same conversation between the same actors over a Unix socket on one
host, and over TCP otherwise. It shows what messaging costs, and how far the latency of a put can fall. By
default everything goes by Ray calls. Ray still starts, places and watches the actors, and carries what
controls them (open, status, introductions, stop); a member tells the address of its listener in its status,
and the supervisor tells it to the others in place of the actor's handle.

What differs from calls
-----------------------
Between members there are no calls: each member keeps one stream to every other, and writes envelopes into
it. An answer is a message like any other, and goes by the stream of whoever answers. Nobody waits, so the
leader's appends are pipelined, and an ack leaves as soon as its sync is done::

    gateway --PROPOSE--> reader thread: Driver.propose, appends leave at once ==> follower's reader: step
                                 log writer: sync                                  log writer: sync, the ack
    gateway <--ANSWER--- applier <-------------- reader thread: step <============ leaves on its thread

The thread that lets go of the driver's mutex carries what was queued meanwhile to the sockets itself
(`peer_stream`): no other thread has to wake up for it, and nothing is written while the mutex is held.

A gateway's calls are numbered, and many are on their way on one connection. A batch of commands holds no
thread of the member while it waits: whoever resolves its waiter also sends the answer (`server`). Other
calls run on workers. A call that cannot be made, or that was on its way when the connection broke, fails as
a Ray call does; nothing here retries.

Who is let in
-------------
Both ends prove that they know the cluster's token, by HMAC over fresh nonces (`handshake`); the token itself
is never sent. The proof names the cluster, and the member that was meant: whoever reaches the socket of
another cluster, or of another member at an address that was taken over, is refused. What follows is neither
encrypted nor signed, as are Ray's own connections: the network between the hosts is trusted. The Unix
sockets are in a directory of the user's own (mode 0700). A listener on TCP exists only if actors of the
cluster are on several hosts, and only on the address by which the Ray node is known.

Zombies: a member's socket has the same name whenever it is opened, so a later process takes it over; and
envelopes carry incarnations, as they do in Ray calls (`node.envelope`).

When the other end is gone, or silent
-------------------------------------
A process that ends closes its sockets: its peers see that at once, and suspect it if it led. A paused one
takes nothing: what is sent to it gathers up to a limit, then its connection is cut, and dialling it again
fails in time until it goes on. On TCP the kernel gives up on lost packets after 2 s, so a partition is no
different. Everything that waits is bounded: connections, calls, frames, bytes that were not taken (`limits`).

What it costs, and what is left
-------------------------------
Measured on two cores that others kept busy as well (a load of about 40), so wall times are the quickest of
300. A frame of 300 bytes there and back: 15 us, and 9 us of CPU on either side for one sent and one
received; of 20 kB 21 and 13 us. On a quiet machine a cluster's CPU per put, of gateway and members, was 0.48
of what it is with Ray calls in the same run with one client, 0.68 with 64 and with 256, 0.78 with 1,024.
Of a single put of 256 bytes, each stage by itself, at its quickest::

    gateway's frame -> leader's reader thread            44 us     decode, propose, append written    94 us
    append -> follower's reader thread                   65        decode, step, wake the log writer 171
    follower: INSERT and sync (without the sync: 412)   683        ack written                        83
    ack -> leader's reader thread                        58        step, commit, apply, answer       226
    answer -> gateway                                   102

Their sum is 1.5 ms, which no whole put reached: the quickest took 3.0, and one client on a quiet machine
sees 3.7 (p50). The four ways by socket are 0.27 of it, waking their readers included; DuckDB's INSERT and
the sync are nearly half. The leader's own INSERT runs beside the follower's.

Modules: `frames` and `handshake` are pure; `addresses` is where members listen, and dialling them; `line`
sends on a connection without blocking; `peer_stream` is a member's stream to a peer, `server` what listens;
`member_calls` are blocking calls (snapshots, the history), `gateway_stream` those of a gateway's loop.
"""
