"""Streams between actors: frames, the handshake, and real sockets between real members."""
