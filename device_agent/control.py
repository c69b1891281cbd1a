"""The control stream to the tracker: dialled by the agent, so that one outgoing port is enough; redialled for ever."""

from __future__ import annotations

import logging
import queue
import random
import secrets
import threading
import time
from collections.abc import Callable, Iterator

import grpc

from crossfarm import _version, errors
from crossfarm.compat import versions
from crossfarm.wire import channels, status
from crossfarm.wire.v1.tracker_pb2 import AgentMessage, Heartbeat, Register, TrackerMessage
from crossfarm.wire.v1.tracker_pb2_grpc import TrackerStub
from device_agent.supervisor import Supervisor

log = logging.getLogger(__name__)

_FIRST_PAUSE = 0.1
_LONGEST_PAUSE = 5.0
#: Until the tracker says otherwise.
_DEFAULT_HEARTBEAT = 2.0
_DEFAULT_DEAD_AFTER = 10.0


class ControlStream:
    """Keeps one Attach stream to the tracker open and passes messages both ways.

    Args:
        address: of the tracker.
        agent_id: this agent's name, unique in the farm.
        on_registered: called each time the tracker has accepted the registration.
        on_refused: called with the reason when the tracker will never accept this agent (API versions, identity).
    """

    def __init__(
        self,
        address: str,
        agent_id: str,
        *,
        security: channels.Security,
        on_registered: Callable[[], None],
        on_refused: Callable[[errors.Error], None],
    ) -> None:
        self._address = address
        self._agent_id = agent_id
        self._instance = secrets.token_hex(8)  # tells this process from another one of the same name
        self._security = security
        self._on_registered = on_registered
        self._on_refused = on_refused
        self._stop = threading.Event()
        self._lock = threading.Lock()
        self._outgoing: queue.SimpleQueue[AgentMessage | None] | None = None
        self._call: grpc.Call | None = None
        self._thread: threading.Thread | None = None

    def start(self, supervisor: Supervisor) -> None:
        """Dials, from a thread of its own."""
        self._thread = threading.Thread(target=self._run, args=(supervisor,), name="control", daemon=True)
        self._thread.start()

    def send(self, message: AgentMessage) -> None:
        """Queues a message on the current stream; without one it is dropped, since a registration tells the state."""
        with self._lock:
            if self._outgoing is not None:
                self._outgoing.put(message)

    def stop(self) -> None:
        """Lets what is queued leave, closes the stream and ends the thread."""
        self._stop.set()
        with self._lock:
            if self._outgoing is not None:
                self._outgoing.put(None)
        if self._thread is not None:
            self._thread.join(timeout=1.0)
            with self._lock:
                if self._call is not None:
                    self._call.cancel()
            self._thread.join(timeout=5.0)

    def _run(self, supervisor: Supervisor) -> None:
        pause = _FIRST_PAUSE
        while not self._stop.is_set():
            began = time.monotonic()
            try:
                self._attach_once(supervisor)
            except errors.Error as failure:
                if not isinstance(failure, errors.RetryableError):
                    self._on_refused(failure)
                    return
                log.warning("%s", failure.message)
            if time.monotonic() - began > _LONGEST_PAUSE:
                pause = _FIRST_PAUSE
            # Spread out: all agents of a farm lose their tracker at the same moment.
            self._stop.wait(pause * random.uniform(0.5, 1.0))
            pause = min(pause * 2, _LONGEST_PAUSE)

    def _attach_once(self, supervisor: Supervisor) -> None:
        """One stream from dialling to its end. Raises what ended it, a RetryableError when it may be redialled."""
        outgoing: queue.SimpleQueue[AgentMessage | None] = queue.SimpleQueue()
        registration: queue.SimpleQueue[AgentMessage] = queue.SimpleQueue()

        def register(snapshot: Register) -> None:
            snapshot.agent_id = self._agent_id
            snapshot.instance = self._instance
            snapshot.api_low, snapshot.api_high = versions.API_READABLE
            snapshot.release = _version.__version__
            registration.put(AgentMessage(register=snapshot))
            # From the same actor turn on, what the supervisor sends follows the registration on this stream.
            with self._lock:
                self._outgoing = outgoing

        def messages() -> Iterator[AgentMessage]:
            yield registration.get()
            while (message := outgoing.get()) is not None:
                yield message

        with channels.open_channel(self._address, self._security) as channel:
            supervisor.snapshot(register)
            call = TrackerStub(channel).Attach(messages(), wait_for_ready=False)
            with self._lock:
                self._call = call
            liveness = _Liveness(call, self.send)
            try:
                with status.rpc_errors(doing="attaching to the tracker", peer=self._address):
                    for message in call:
                        self._handle(message, supervisor, liveness)
                if not self._stop.is_set():
                    raise errors.Unavailable(f"the tracker at {self._address} closed the control stream")
            except errors.Cancelled as ended:
                if not self._stop.is_set():
                    raise errors.Unavailable(f"the tracker at {self._address} went silent") from ended
            finally:
                liveness.stop()
                with self._lock:
                    self._outgoing = self._call = None
                outgoing.put(None)
                call.cancel()

    def _handle(self, message: TrackerMessage, supervisor: Supervisor, liveness: _Liveness) -> None:
        liveness.heard()
        kind = message.WhichOneof("message")
        if kind == "registered":
            registered = message.registered
            liveness.start(
                (registered.heartbeat_interval_ms or _DEFAULT_HEARTBEAT * 1000) / 1000,
                (registered.dead_after_ms or _DEFAULT_DEAD_AFTER * 1000) / 1000,
            )
            supervisor.set_stores(list(registered.stores))
            self._on_registered()
        elif kind == "start":
            supervisor.start_lease(message.start)
        elif kind == "end":
            supervisor.end_lease(message.end)


class _Liveness:
    """Sends heartbeats on a stream and cancels it when nothing was heard for too long: a half-open connection."""

    def __init__(self, call: grpc.Call, send: Callable[[AgentMessage], None]) -> None:
        self._call = call
        self._send = send
        self._heard = time.monotonic()
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None

    def heard(self) -> None:
        self._heard = time.monotonic()

    def start(self, interval: float, dead_after: float) -> None:
        if self._thread is None:
            self._thread = threading.Thread(
                target=self._run, args=(interval, dead_after), name="heartbeat", daemon=True
            )
            self._thread.start()

    def stop(self) -> None:
        self._stop.set()
        if self._thread is not None:
            self._thread.join()

    def _run(self, interval: float, dead_after: float) -> None:
        sequence = 0
        while not self._stop.wait(interval):
            if time.monotonic() - self._heard > dead_after:
                self._call.cancel()
                return
            sequence += 1
            self._send(AgentMessage(heartbeat=Heartbeat(sequence=sequence)))
