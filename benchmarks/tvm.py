"""Apache TVM's RPC as a peer: its tracker, its servers and its client, each a process of its own environment."""

from __future__ import annotations

import json
import select
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from benchmarks.processes import FAR, NEAR, REPOSITORY, child, free_ports, wait_for_port

PYTHON = REPOSITORY / ".peers" / "tvm" / "bin" / "python"
#: The tracker and two servers: one that clients reach directly, one that they are sent to through the slow link.
TRACKER, SERVER, FAR_SERVER = range(3)
#: Longer than any measurement: a request that TVM never answers must not stop the run.
ANSWER_SECONDS = 60


class TvmPeer:
    """A running TVM farm with its client.

    Attributes:
        version: TVM's own.
        ports: those that the slow link must carry.
    """

    def __init__(self, client: subprocess.Popen[str], ports: list[int]) -> None:
        self._client = client
        self.ports = ports
        self.version = str(self._answer()["ready"])

    def measure(self, what: str, **arguments: Any) -> list[float]:
        """Seconds, one for each repetition, of one of the methods in peers/tvm_client.py. Raises RuntimeError."""
        if self._client.stdin is None:
            raise RuntimeError("the TVM client has no input")
        self._client.stdin.write(json.dumps({"do": what, **arguments}) + "\n")
        self._client.stdin.flush()
        return [float(seconds) for seconds in self._answer()["seconds"]]

    def _answer(self) -> dict[str, Any]:
        if self._client.stdout is None:
            raise RuntimeError("the TVM client has no output")
        if not select.select([self._client.stdout], [], [], ANSWER_SECONDS)[0]:
            raise RuntimeError(f"the TVM client has not answered for {ANSWER_SECONDS} s")
        line = self._client.stdout.readline()
        if not line:
            raise RuntimeError(f"the TVM client ended with exit code {self._client.wait()}")
        answer: dict[str, Any] = json.loads(line)
        if "error" in answer:
            raise RuntimeError(f"the TVM client reports: {answer['error']}")
        return answer


@contextmanager
def tvm_peer(program: Path, *, log: Path) -> Iterator[TvmPeer]:
    """Starts TVM's tracker, two servers and the client. Raises RuntimeError where ``make peers`` has not run."""
    if not PYTHON.exists():
        raise RuntimeError(f"no Apache TVM at {PYTHON}: run `make peers`")
    low = free_ports(3)
    tracker = low + TRACKER
    with ExitStack() as stack:
        stack.enter_context(child([str(PYTHON), "-m", "tvm.exec.rpc_tracker", *_listen(tracker), "--silent"], log=log))
        wait_for_port(tracker)
        for key, port, advertised in (("near", low + SERVER, NEAR), ("far", low + FAR_SERVER, FAR)):
            command = [str(PYTHON), "-m", "tvm.exec.rpc_server", *_listen(port), "--silent"]
            command += ["--tracker", f"{NEAR}:{tracker}", "--key", key, "--custom-addr", advertised]
            stack.enter_context(child(command, log=log))
            wait_for_port(port)
        script = Path(__file__).parent / "peers" / "tvm_client.py"
        command = [str(PYTHON), str(script), "--program", str(program)]
        command += ["--tracker", f"{NEAR}:{tracker}", "--far-tracker", f"{FAR}:{tracker}"]
        client = stack.enter_context(child(command, log=log))
        yield TvmPeer(client, [tracker, low + FAR_SERVER])


def _listen(port: int) -> list[str]:
    return ["--host", NEAR, "--port", str(port), "--port-end", str(port + 1)]
