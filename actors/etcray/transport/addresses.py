"""Where a member listens, and how to reach it there.

On its own host a member is reached by a Unix socket, in a directory of the user's own: that of the run
records, unless its path is too long for a socket. The socket's name follows from the member and its
directory, so whichever process has the directory takes the name over from the one before.
"""

from __future__ import annotations

import hashlib
import os
import socket
import stat
import tempfile
import time
from contextlib import suppress
from pathlib import Path
from typing import Final

import msgspec

from etcray import run_file
from etcray.transport.frames import Frame, FrameDecoder, FrameError, Kind, header
from etcray.transport.handshake import NONCE_BYTES, Claim, Credentials, StrangerError, check_welcome, prove
from etcray_storage.errors import DataDirectoryError
from etcray_storage.limits import STREAM_CONNECT_SECONDS, STREAM_HANDSHAKE_BYTES_MAX
from etcray_storage.types import MemberId

UNIX_PATH_BYTES_MAX: Final = 107
"""The kernel's, without the byte that ends it."""

SEND_BUFFER_BYTES: Final = 512 * 1024
"""Asked of the kernel, which may give less: an ordinary frame is sent in one piece."""

TCP_LOST_MILLISECONDS: Final = 2_000
"""After so long without an acknowledgement the kernel ends a connection: both ends can dial anew."""


class StreamAddress(msgspec.Struct, frozen=True, kw_only=True):
    """Where one member listens."""

    hostname: str
    unix_path: str
    """Of use on that host only."""
    host: str = ""
    port: int = 0
    """For other hosts; empty and 0 while nobody is on one."""


class UnreachableError(Exception):
    """Nobody answers there, or not the member that was meant."""


def socket_path(member: MemberId, data_directory: str) -> Path:
    """Where the member of that directory listens on its host. The path's directory exists afterwards.

    Raises DataDirectoryError if no directory will do."""
    digest = hashlib.sha256(f"{member:x} {data_directory}".encode()).hexdigest()
    name = f"{digest[:20]}.sock"
    chosen = run_file.run_directory().absolute() / "streams"
    if len(os.fsencode(chosen / name)) > UNIX_PATH_BYTES_MAX:
        chosen = Path(tempfile.gettempdir()) / f"etcray-{os.getuid()}"
    path = chosen / name
    if len(os.fsencode(path)) > UNIX_PATH_BYTES_MAX:
        raise DataDirectoryError(f"{path} is too long for a socket: set ETCRAY_RUN_DIR to a shorter path")
    _make_private(chosen)
    return path


def _make_private(directory: Path) -> None:
    """In a directory that others may write to, somebody else may have been first."""
    try:
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        found = directory.stat(follow_symlinks=False)
    except OSError as error:
        raise DataDirectoryError(f"cannot create {directory}: {error}. Set ETCRAY_RUN_DIR") from error
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.getuid():
        raise DataDirectoryError(f"{directory} is not a directory of this user's: set ETCRAY_RUN_DIR")
    if found.st_mode & 0o077:
        directory.chmod(0o700)


def listen_unix(path: Path) -> socket.socket:
    """Take the name over, whoever had it."""
    path.unlink(missing_ok=True)
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        listener.bind(str(path))
        listener.listen(64)
    except BaseException:
        listener.close()
        raise
    return listener


def listen_tcp(host: str) -> socket.socket:
    """On a port that the system chooses."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    return socket.create_server((host, 0), family=family, backlog=64)


def is_here(address: StreamAddress) -> bool:
    """Whether the member is reached by its Unix socket."""
    return address.hostname == socket.gethostname() and Path(address.unix_path).exists()


def prepare(connection: socket.socket) -> None:
    """What every connection needs, at both ends."""
    with suppress(OSError):
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, SEND_BUFFER_BYTES)
    if connection.family != socket.AF_UNIX:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, TCP_LOST_MILLISECONDS)


def dial(
    address: StreamAddress,
    credentials: Credentials,
    member: MemberId,
    role: str,
    seconds: float = STREAM_CONNECT_SECONDS,
) -> socket.socket:
    """A blocking connection to that member, with the handshake done. Raises UnreachableError in time."""
    deadline = time.monotonic() + seconds
    connection: socket.socket | None = None
    try:
        if is_here(address):
            connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
            connection.settimeout(seconds)
            connection.connect(address.unix_path)
        elif address.port:
            connection = socket.create_connection((address.host, address.port), timeout=seconds)
        else:
            raise UnreachableError(f"{address.unix_path} is not there, and no address for other hosts")
        prepare(connection)
        claim = Claim(credentials.cluster, member, role, os.urandom(NONCE_BYTES))
        challenged = read_frame(connection, Kind.CHALLENGE, deadline)
        proof = prove(credentials, challenged, claim)
        connection.sendall(header(Kind.PROOF, 0, len(proof)) + proof)
        check_welcome(credentials, challenged, claim, read_frame(connection, Kind.WELCOME, deadline))
        connection.settimeout(None)
    except (OSError, FrameError, StrangerError) as error:
        if connection is not None:
            connection.close()
        raise UnreachableError(f"member {member:x}: {error or type(error).__name__}") from error
    return connection


def read_frame(connection: socket.socket, kind: Kind, deadline: float) -> bytes:
    """The payload of one frame of the handshake, of which nothing follows unasked. Raises OSError,
    FrameError."""
    decoder = FrameDecoder(STREAM_HANDSHAKE_BYTES_MAX)
    frames: list[Frame] = []
    while not frames:
        connection.settimeout(max(0.001, deadline - time.monotonic()))
        data = connection.recv(STREAM_HANDSHAKE_BYTES_MAX)
        if not data:
            raise ConnectionResetError("the connection was closed")
        frames = decoder.feed(data)
    if len(frames) > 1 or frames[0].kind != kind or not decoder.is_empty:
        raise FrameError(f"a frame of kind {frames[0].kind} instead of {kind}")
    return frames[0].payload
