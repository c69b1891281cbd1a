"""The tracker is killed with SIGKILL and started again: nothing is lost, nothing is given twice."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from itertools import count
from pathlib import Path

import pytest

from crossfarm import errors
from crossfarm.wire.v1 import tracker_pb2 as wire

from .farm import Agent, Client, TrackerProcess, devices, running_tracker, wait_for_state

pytestmark = pytest.mark.filterwarnings("error::pytest.PytestUnhandledThreadExceptionWarning")

BOARDS = {f"board{i}": {"kind": "cpu"} for i in range(4)}


@pytest.fixture
def tracker(tmp_path: Path) -> Iterator[TrackerProcess]:
    with running_tracker(tmp_path / "state") as process:
        yield process


def test_leases_and_devices_survive_a_kill_of_the_tracker(tracker: TrackerProcess) -> None:
    with ExitStack() as peers:
        agent = Agent(tracker.address, "lab", BOARDS)
        peers.callback(agent.close)
        clients = [Client.opens(tracker.address) for _ in range(3)]
        for client in clients:
            peers.callback(client.close)
        leases = [client.granted() for client in clients]
        tracker.kill()
        for stream in (agent, *clients):
            with pytest.raises(errors.Unavailable):
                stream.drain()
        tracker.start()

        known = devices(tracker.address)
        assert sorted(known) == [f"lab/{board}" for board in sorted(BOARDS)]
        assert {device.state for device in known.values()} == {wire.OFFLINE}

        # A newcomer comes before the agent is back: there is one device for it, and it must be the right one.
        newcomer = Client.opens(tracker.address)
        peers.callback(newcomer.close)
        assert "offline" in newcomer.queued().busy_with
        resumed = [Client.resumes(tracker.address, lease) for lease in leases]
        for client, lease in zip(resumed, leases):
            peers.callback(client.close)
            again = client.granted()
            assert (again.lease_id, again.address) == (lease.lease_id, lease.address)

        back = Agent(tracker.address, "lab", BOARDS, held=agent.held())
        peers.callback(back.close)
        back.running.update(agent.running)
        fresh = newcomer.granted()
        assert fresh.device.id not in {lease.device.id for lease in leases}
        assert fresh.fencing_token > max(lease.fencing_token for lease in leases)
        assert {d.state for d in devices(tracker.address).values()} == {wire.LEASED}

        for client in (*resumed, newcomer):
            client.release()
            assert client.ended().kind == wire.Outcome.RELEASED
        for board in BOARDS:
            wait_for_state(tracker.address, f"lab/{board}", wire.FREE)


def test_a_lease_whose_client_died_with_the_tracker_ends_after_its_ttl(tracker: TrackerProcess) -> None:
    agent = Agent(tracker.address, "lab", {"cpu": {}})
    client = Client.opens(tracker.address, ttl_ms=1_000)
    client.granted()
    tracker.kill()
    client.close()
    agent.close()
    tracker.start()
    back = Agent(tracker.address, "lab", {"cpu": {}}, held=agent.held())
    assert devices(tracker.address)["lab/cpu"].state == wire.LEASED
    wait_for_state(tracker.address, "lab/cpu", wire.FREE)
    back.close()


def test_a_tracker_that_cannot_save_promises_nothing_and_goes_on_from_what_it_saved(tracker: TrackerProcess) -> None:
    with ExitStack() as peers:
        agent = Agent(tracker.address, "lab", {"cpu": {}})
        peers.callback(agent.close)
        tracker.fill_disk()
        client = Client.opens(tracker.address)
        peers.callback(client.close)
        with pytest.raises(errors.Unavailable):
            client.granted()
        assert tracker.wait() == 3
        assert agent.running == {}, "a lease that was not saved was started"
        tracker.start()
        back = Agent(tracker.address, "lab", {"cpu": {}})
        peers.callback(back.close)
        again = Client.opens(tracker.address)
        peers.callback(again.close)
        assert again.granted().device.id == "lab/cpu"


def test_a_tracker_that_stood_still_does_not_blame_those_it_could_not_hear(tmp_path: Path) -> None:
    """It is suspended for longer than the lease's TTL and the agent's patience, while both go on talking to it."""
    with (
        running_tracker(tmp_path / "state", "--dead-after", "0.4", "--heartbeat", "0.1") as tracker,
        ExitStack() as peers,
    ):
        agent = Agent(tracker.address, "lab", {"cpu": {}})
        peers.callback(agent.close)
        client = Client.opens(tracker.address, ttl_ms=1_000)
        peers.callback(client.close)
        client.granted()
        silence = threading.Event()
        tracker.send_signal(signal.SIGSTOP)
        for sequence in range(25):
            agent.heartbeat(sequence)
            client.renew()
            silence.wait(0.1)
        tracker.send_signal(signal.SIGCONT)
        assert client.receive().HasField("renewed")
        client.release()
        assert client.ended().kind == wire.Outcome.RELEASED


def test_kills_during_a_stream_of_jobs_lose_no_device_and_lease_none_twice(tracker: TrackerProcess) -> None:
    """Clients take and give back leases all the time while the tracker is killed three times. Agent and clients come
    back as real ones do; the agent would see at once a second worker on a device."""
    clashes: list[str] = []
    finished, detach = threading.Event(), threading.Event()
    jobs_done = threading.Semaphore(0)
    tokens: list[int] = []
    attached: list[Agent] = []

    class CheckedAgent(Agent):
        def _start(self, start: wire.StartLease) -> None:
            if any(other.device_id == start.device_id for other in self.running.values()):
                clashes.append(start.device_id)
            super()._start(start)

    def keep_attached() -> None:
        running: dict[str, wire.StartLease] = {}
        while not detach.is_set():
            agent = CheckedAgent(tracker.address, "lab", BOARDS, running=running, register=False)
            attached.append(agent)
            with suppress(errors.Error):
                agent.drain()
            agent.close()
            running = agent.running
            detach.wait(0.02)

    def attempt(client: Client, granted: wire.AcquireEvent.Granted | None) -> wire.AcquireEvent.Granted | None:
        """One try to get through a job; what is held afterwards."""
        try:
            granted = client.granted()
            client.release()
            client.ended()
        except errors.LeaseLost:
            return None  # it was released just before the kill
        except (errors.Unavailable, errors.NoSuchDevice):
            return granted
        finally:
            client.close()
        tokens.append(granted.fencing_token)
        jobs_done.release()
        return None

    def work(name: str) -> None:
        for job in count():
            held: wire.AcquireEvent.Granted | None = None
            while not finished.is_set():
                again = Client.resumes(tracker.address, held) if held else None
                held = attempt(again or Client.opens(tracker.address, request_id=f"{name}-{job}"), held)
                if held is None:
                    break
            if finished.is_set():
                return

    agent_thread = threading.Thread(target=keep_attached)
    threads = [threading.Thread(target=work, args=(name,)) for name in "abcdef"]
    for thread in (agent_thread, *threads):
        thread.start()
    try:
        for _ in range(3):
            for _ in range(20):
                assert jobs_done.acquire(timeout=20), "no job gets through"
            tracker.kill()
            tracker.start()
        for _ in range(20):
            assert jobs_done.acquire(timeout=20), "no job gets through"
    finally:
        finished.set()
        for thread in threads:
            thread.join(30)
        detach.set()
        attached[-1].half_close()
        agent_thread.join(30)
    assert clashes == []
    assert len(tokens) == len(set(tokens)), "a fencing token was given twice"
    agent = Agent(tracker.address, "lab", BOARDS)
    for board in BOARDS:
        wait_for_state(tracker.address, f"lab/{board}", wire.FREE)
    agent.close()
