"""Messages between the service and its build workers: a JSON header and byte strings, over a pair of pipes.

Nothing is pickled: a worker that a hostile module took over cannot make the service run anything.
"""

from __future__ import annotations

import json
from multiprocessing.connection import Connection
from typing import Any

from crossfarm.errors import InfrastructureError

MAX_BYTES = 1 << 31
MAX_BLOBS = 1024


class Pipe:
    """Both ends of a conversation: what this side reads from and writes to.

    Raises (each method):
        EOFError: the other side is gone.
    """

    def __init__(self, read_fd: int, write_fd: int) -> None:
        self.reader = Connection(read_fd, writable=False)
        self.writer = Connection(write_fd, readable=False)

    def send(self, header: dict[str, Any], *blobs: bytes) -> None:
        """Sends one message."""
        try:
            self.writer.send_bytes(json.dumps({**header, "blobs": len(blobs)}).encode())
            for blob in blobs:
                self.writer.send_bytes(blob)
        except OSError as failure:
            raise EOFError("the other side of the pipe is gone") from failure

    def receive(self) -> tuple[dict[str, Any], list[bytes]]:
        """The next message. Raises InfrastructureError when the other side talks nonsense."""
        try:
            header = json.loads(self.reader.recv_bytes(MAX_BYTES))
            count = int(header["blobs"])
            if not 0 <= count <= MAX_BLOBS:
                raise ValueError(f"{count} blobs")
            return header, [self.reader.recv_bytes(MAX_BYTES) for _ in range(count)]
        except (ValueError, TypeError, KeyError) as failure:
            raise InfrastructureError(f"a build worker sent a malformed message: {failure}") from failure
        except EOFError:
            raise
        except OSError as failure:
            raise EOFError("the other side of the pipe is gone") from failure

    def close(self) -> None:
        self.reader.close()
        self.writer.close()
