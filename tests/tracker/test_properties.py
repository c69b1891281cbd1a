"""Whatever happens, in whatever order, the tracker keeps its promises.

Hypothesis drives the machine with agents whose workers are really counted, connections that lose what was on its way,
clients that die and resume, restarts of everything, and checks the promises after each step.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field
from typing import Any

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from crossfarm.wire.v1 import tracker_pb2 as wire
from tracker import events
from tracker.machine import Machine
from tracker.state import Phase
from tracker.store import lease_row

from .world import BOARD, CPU, World, held

AGENTS = {
    "a": {"a/cpu": CPU, "a/board": BOARD},
    "b": {"b/cpu": CPU},
}
SELECTORS = ["", "arch=x86_64", "arch=aarch64", "agent=b"]
OUTCOMES = [wire.Outcome.PROGRAM_FAILED, wire.Outcome.INFRASTRUCTURE_FAILED, wire.Outcome.SESSION_TIMEOUT]


@dataclass
class ModelAgent:
    """The truth about one machine: which workers run. ``inbox``: what the tracker said and it has not read yet."""

    devices: dict[str, dict[str, str]]
    stream: int | None = None
    workers: dict[str, wire.StartLease] = field(default_factory=dict)  # by device
    ready: set[str] = field(default_factory=set)
    inbox: deque[Any] = field(default_factory=deque)
    unsaid: list[tuple[str, bool]] = field(default_factory=list)  # ends not yet reported: lease, device_ok
    checking: set[str] = field(default_factory=set)


class TrackerPromises(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.world = World()
        self.agents = {name: ModelAgent(devices) for name, devices in AGENTS.items()}
        self.clients: dict[int, wire.AcquireEvent.Granted | None] = {}  # open streams, and what they were granted
        self.away: list[wire.AcquireEvent.Granted] = []
        self.last_fence = 0
        self.checked = 0
        self.restarts: list[int] = []
        for name in self.agents:
            self.attach(name)

    # --- agents

    @rule(name=st.sampled_from(sorted(AGENTS)))
    def attach(self, name: str) -> None:
        """Dials, or dials again while the older connection still seems to be there."""
        agent = self.agents[name]
        agent.inbox.clear()
        agent.unsaid.clear()  # what it holds says it all
        states = dict.fromkeys(agent.checking, wire.CHECKING)
        holding = held(*agent.workers.values())
        agent.stream = self.world.attach(name, agent.devices, holding, states)
        self._collect()

    @rule(name=st.sampled_from(sorted(AGENTS)), workers_die=st.booleans())
    def detach(self, name: str, workers_die: bool) -> None:
        """The connection breaks, or the whole machine restarts. What was on its way is lost."""
        agent = self.agents[name]
        if workers_die:
            agent.workers.clear()
            agent.checking.clear()
        if agent.stream is not None:
            self.world.detach(agent.stream)
        agent.stream = None
        agent.inbox.clear()
        self._collect()

    @rule(name=st.sampled_from(sorted(AGENTS)))
    def agent_reads(self, name: str) -> None:
        agent = self.agents[name]
        if not agent.inbox:
            return
        message = agent.inbox.popleft()
        if isinstance(message, wire.StartLease):
            assert message.device_id not in agent.workers, "two workers on one device"
            agent.workers[message.device_id] = message
        elif isinstance(message, wire.EndLease):
            self._stop_worker(agent, message.lease_id, True)

    @rule(name=st.sampled_from(sorted(AGENTS)), device_ok=st.booleans())
    def agent_reports(self, name: str, device_ok: bool) -> None:
        """Says everything that it has to say."""
        agent = self.agents[name]
        if agent.stream is None:
            return
        for lease_id, ok in agent.unsaid:
            self.world.worker_ended(agent.stream, lease_id, device_ok=ok)
        agent.unsaid.clear()
        for start in agent.workers.values():
            if start.lease_id not in agent.ready:
                agent.ready.add(start.lease_id)
                self.world.ready(agent.stream, start.lease_id)
        if device_ok:
            for device in sorted(agent.checking):
                self.world.report(agent.stream, device, healthy=True)
            agent.checking.clear()
        self.world.heartbeat(agent.stream)
        self._collect()

    @rule(name=st.sampled_from(sorted(AGENTS)))
    def agent_works(self, name: str) -> None:
        """What an agent mostly does: reads all, does it, and says so."""
        while self.agents[name].inbox:
            self.agent_reads(name)
        self.agent_reports(name, device_ok=True)

    @rule(name=st.sampled_from(sorted(AGENTS)), kind=st.sampled_from(OUTCOMES), device_ok=st.booleans())
    def worker_dies(self, name: str, kind: wire.Outcome.Kind, device_ok: bool) -> None:
        agent = self.agents[name]
        for start in list(agent.workers.values())[:1]:
            self._stop_worker(agent, start.lease_id, device_ok)

    # --- clients

    @rule(
        selector=st.sampled_from(SELECTORS),
        priority=st.sampled_from([0, 50, 100]),
        timeout=st.sampled_from([0, 0, 3_000]),
        request_id=st.sampled_from(["", "", "r1", "r2"]),
    )
    def open(self, selector: str, priority: int, timeout: int, request_id: str) -> None:
        stream = self.world.open(selector, priority, timeout, request_id=request_id, client="ann")
        self.clients[stream] = None
        self._collect()

    @precondition(lambda self: self.clients)
    @rule(data=st.data(), how=st.sampled_from(["release", "break", "renew"]))
    def client_acts(self, data: st.DataObject, how: str) -> None:
        stream = data.draw(st.sampled_from(sorted(self.clients)))
        if how == "renew":
            self.world.renew(stream)
        elif how == "release":
            self.world.release(stream)
        else:
            granted = self.clients.pop(stream)
            if granted is not None:
                self.away.append(granted)
            self.world.break_client(stream)
        self._collect()

    @precondition(lambda self: self.away)
    @rule(guess=st.booleans())
    def client_resumes(self, guess: bool) -> None:
        granted = self.away.pop(0)
        stream = self.world.resume(granted, token="guess" if guess else None)
        self.clients[stream] = None
        self._collect()
        if guess:
            assert stream not in self.clients, "a wrong token was accepted"

    # --- time and the tracker

    @rule(milliseconds=st.sampled_from([1, 250, 1_000, 5_000, 40_000, 200_000]))
    def time_passes(self, milliseconds: int) -> None:
        self.world.passes(milliseconds)
        self._collect()
        due = self.world.machine.next_time()
        assert due is None or due > self.world.now

    @rule()
    def tracker_is_killed(self) -> None:
        self._collect()
        self.away.extend(granted for granted in self.clients.values() if granted is not None)
        self.clients.clear()
        for agent in self.agents.values():
            agent.stream = None
            agent.inbox.clear()
        self.restarts.append(len(self.world.history))
        self.world.restart()

    # --- the promises

    @invariant()
    def what_is_known_agrees_with_itself(self) -> None:
        state = self.world.machine.state
        assert set(state.free) == {d.id for d in state.devices.values() if d.state == wire.FREE}
        assert state.queue == sorted((r.rank, r.key) for r in state.requests.values())
        on_device = [lease.device_id for lease in state.leases.values()]
        assert len(on_device) == len(set(on_device)), "a device with two leases"
        for lease in state.leases.values():
            assert state.devices[lease.device_id].lease_id == lease.id
        for device in state.devices.values():
            assert device.lease_id is None or device.lease_id in state.leases
        assert state.request_streams == {r.stream: r.key for r in state.requests.values()}
        assert state.lease_streams == {
            s.request.stream: s.id for s in state.leases.values() if s.request.stream is not None
        }
        assert set(state.devices) == {device for agent in AGENTS.values() for device in agent}, "a device is lost"

    @invariant()
    def what_is_saved_is_enough(self) -> None:
        state, world = self.world.machine.state, self.world
        assert world.saved_fence >= self.last_fence
        assert set(world.saved_devices) == set(state.devices)
        live = {s.id: s for s in state.leases.values()}
        assert set(world.saved_leases) == set(live) | set(state.ended)
        for lease in live.values():
            saved = world.saved_leases[lease.id]
            row = lease_row(lease)
            if lease.phase is Phase.ENDING and saved["phase"] == Phase.STARTING:
                continue  # a start that a restart gave up: another restart gives it up again
            assert saved == row

    @invariant()
    def nobody_waits_beside_a_free_device(self) -> None:
        state = self.world.machine.state
        for request in state.requests.values():
            assert not state.devices_matching(request.selector) & set(state.free)

    @invariant()
    def running_workers_are_known_or_their_device_is_not_given_away(self) -> None:
        state = self.world.machine.state
        for agent in self.agents.values():
            for device_id in agent.workers:
                assert device_id not in state.free

    def teardown(self) -> None:
        """When all that is broken is repaired, every device is free again; and the same events give the same steps."""
        for name in self.agents:
            self.attach(name)
        for _ in range(20):
            for stream in list(self.clients):
                self.world.release(stream)
            self._collect()
            for name in self.agents:
                self.agent_works(name)
        for _ in range(10):  # clients that are away for good
            self.world.passes(1_000)
            for agent in self.agents.values():
                assert agent.stream is not None
                self.world.heartbeat(agent.stream)
            self._collect()
        for _ in range(40):
            self.world.passes(1_000)
            for name in self.agents:
                self._collect()
                self.agent_works(name)
        self.what_is_known_agrees_with_itself()
        for device in self.world.machine.state.devices.values():
            assert device.state == wire.FREE, device
        self._replay()

    def _replay(self) -> None:
        history = self.world.history
        if self.restarts:
            history = history[: self.restarts[0]]
        machine = Machine(self.world.config, stores=("store:1",))
        for event, step in history:
            assert repr(machine.handle(event)) == repr(step)  # errors have no equality, only words

    def _stop_worker(self, agent: ModelAgent, lease_id: str, device_ok: bool) -> None:
        for device, start in list(agent.workers.items()):
            if start.lease_id == lease_id:
                del agent.workers[device]
                if not device_ok:
                    agent.checking.add(device)
        agent.unsaid.append((lease_id, device_ok))

    def _collect(self) -> None:
        """Hands out what the tracker said, and checks the tokens and the order of what it granted."""
        for event, step in self.world.history[self.checked :]:
            self._check_starts(event, step)
        self.checked = len(self.world.history)
        for agent in self.agents.values():
            if agent.stream is None:
                continue
            for message in self.world.take(agent.stream):
                if isinstance(message, wire.StartLease | wire.EndLease):
                    agent.inbox.append(message)
                elif isinstance(message, Exception):
                    agent.stream = None
                    agent.inbox.clear()
                    break
        for stream in list(self.clients):
            for message in self.world.take(stream):
                if isinstance(message, wire.AcquireEvent.Granted):
                    self.clients[stream] = message
                elif message is None or isinstance(message, Exception):
                    del self.clients[stream]
                    break

    def _check_starts(self, event: events.Event, step: events.Step) -> None:
        state = self.world.machine.state
        for effect in step.effects:
            message = effect.message if isinstance(effect, events.Send) else None
            if not isinstance(message, wire.TrackerMessage) or not message.HasField("start"):
                continue
            start = message.start
            assert start.fencing_token > self.last_fence, "a fencing token did not rise"
            self.last_fence = start.fencing_token
            saved = [c.lease.id for c in step.changes if isinstance(c, events.SaveLease)]
            assert start.lease_id in saved, "a start that was not saved before it was sent"
            lease = state.leases.get(start.lease_id)
            if lease is None or event is not self.world.history[-1][0]:
                continue  # more has happened since: the queue is no longer what it was
            for waiting in state.requests.values():
                better = waiting.rank < lease.request.rank
                assert not (better and lease.device_id in state.devices_matching(waiting.selector)), "jumped the queue"


TestTrackerPromises = TrackerPromises.TestCase
TestTrackerPromises.settings = settings(
    max_examples=80, stateful_step_count=40, deadline=None, suppress_health_check=list(HealthCheck)
)
