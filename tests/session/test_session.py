"""The session itself: who is let in, what survives a broken connection, where artifacts come from."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace

import grpc
import numpy as np
import pytest

import crossfarm as cf
from clients.sdk.device import Device
from crossfarm.artifact import Artifact, write_artifact
from crossfarm.target import Target
from crossfarm.wire.channels import split_address
from crossfarm.wire.v1.artifact_pb2 import EntryPoint, Requirements, Variant
from crossfarm.wire.v1.capabilities_pb2 import GetCapabilitiesRequest
from crossfarm.wire.v1.session_pb2_grpc import SessionStub

Opener = Callable[..., Device]
F = np.arange(4, dtype=np.float32)


def _second_client(device: Device, **changed: object) -> Device:
    """Another client with the same lease but for what is changed; its end leaves the lease alone."""
    lease = device.lease
    facts = {"id": lease.id, "session_token": lease.session_token, "address": lease.address, "info": lease.info}
    same = SimpleNamespace(**{**facts, "failure": lambda wait: None, "release": lambda: None, **changed})
    return Device(same)  # type: ignore[arg-type]


@pytest.mark.parametrize("wrong", [{"session_token": "guess"}, {"session_token": ""}, {"id": "lease-2"}])
def test_a_wrong_token_is_refused_and_the_right_client_goes_on(
    cpu: Device, artifact: Artifact, wrong: dict[str, str]
) -> None:
    loaded = cpu.load(artifact)
    with _second_client(cpu, **wrong) as stranger, pytest.raises(cf.PermissionDenied, match="token"):
        stranger.synchronize()
    with _second_client(cpu, **wrong) as stranger, pytest.raises(cf.PermissionDenied):
        stranger._session.cancel(1, 100)
    assert loaded["empty"]() is None


def test_another_stream_of_the_same_client_takes_over_and_finds_everything(device_of: Opener) -> None:
    device = device_of("cpu")
    tensor = device.tensor(F)
    device.synchronize()
    with _second_client(device) as again:
        again.synchronize()
        assert again._session.welcome.result().resumed
        tensor._session = again._session
        np.testing.assert_array_equal(tensor.numpy(), F)
        tensor.free()


def test_a_broken_connection_is_retryable_and_the_session_goes_on(device_of: Opener, artifact: Artifact) -> None:
    near = device_of("cpu")
    with _cuttable(near.lease.address) as proxy, _second_client(near, address=proxy.address) as device:
        add = device.load(artifact)["add"]
        x = device.tensor(F)
        device.synchronize()
        proxy.cut()
        with pytest.raises(cf.Unavailable, match="broke") as caught:
            add(x, x)
        assert caught.value.retryable
        with add(x, x) as z:  # the same objects, on a new connection
            np.testing.assert_array_equal(z.numpy(), F * 2)


@pytest.mark.parametrize("constant", [False, True], ids=["a tensor", "a constant"])
def test_an_upload_goes_on_where_its_connection_broke(constant: bool, device_of: Opener) -> None:
    near = device_of("null")
    data = np.random.default_rng(1).integers(0, 255, 30_000_000, dtype=np.uint8)
    with _cuttable(near.lease.address, cut_after=10_000_000) as proxy:
        with _second_client(near, address=proxy.address) as device, device.tensor(data, constant=constant) as tensor:
            assert np.array_equal(tensor.numpy(), data)
        assert proxy.cuts == 1
        assert proxy.passed < 45_000_000, "more was sent again than what was on its way"


def test_a_large_artifact_is_uploaded_when_nobody_has_it_and_cached_from_then_on(
    device_of: Opener, artifact: Artifact
) -> None:
    large = write_artifact(
        "large",
        artifact.variants,
        [artifact.code(variant) for variant in artifact.variants],
        module=artifact.section(artifact.manifest.ir_section),
        sources=[{"notes": np.random.default_rng(2).bytes(700_000).hex()}],
    )
    device = device_of("cpu")
    loaded = device.load(large)
    assert loaded.source == "tensor"
    np.testing.assert_array_equal(loaded["add"](F, F), F * 2)
    device.close()
    assert device_of("cpu").load(large).source == "cache"


def test_an_artifact_for_another_machine_is_refused_before_it_is_loaded(cpu: Device, artifact: Artifact) -> None:
    variant = Variant()
    variant.CopyFrom(artifact.variants[0])
    variant.requires.CopyFrom(Requirements(arch="riscv64", os="linux", native_abi=1))
    foreign = write_artifact("foreign", [variant], [artifact.code(artifact.variants[0])])
    with pytest.raises(cf.IncompatibleArtifact, match="riscv64"):
        cpu.load(foreign)


def test_a_library_that_is_none_is_refused_by_the_loader(cpu: Device) -> None:
    variant = Variant(
        runtime="cpu", target=Target.detect().to_proto(), requires=Requirements(native_abi=1), entry_points=[_EMPTY]
    )
    with pytest.raises(cf.IncompatibleArtifact, match="cannot load the library"):
        cpu.load(write_artifact("broken", [variant], [b"\x7fELF and no more"]))


def test_what_programs_and_the_worker_log_can_be_read(cpu: Device) -> None:
    with _second_client(cpu) as other:
        other.synchronize()
        assert "takes over" in other.logs()


def test_the_worker_tells_what_it_speaks(cpu: Device) -> None:
    with grpc.insecure_channel(cpu.lease.address) as channel:
        told = SessionStub(channel).GetCapabilities(GetCapabilitiesRequest(), timeout=10)
    assert (told.service, told.api_low) == ("session", 1)


def test_the_supervisor_is_told_of_client_and_program(device_of: Opener, artifact: Artifact) -> None:
    device = device_of("cpu")
    device.load(artifact)
    lease = device.lease
    assert lease.wait_for("client")["connected"] is True  # type: ignore[attr-defined]
    assert lease.wait_for("loaded")["artifact"] == artifact.digest  # type: ignore[attr-defined]


def test_no_file_of_a_loaded_library_stays(device_of: Opener, artifact: Artifact, tmp_path: Path) -> None:
    device_of("cpu").load(artifact)
    assert not [path for path in tmp_path.rglob("*") if path.suffix == ".so"]


_EMPTY = EntryPoint(name="empty", native={"symbol": "empty"})


class _Proxy:
    """Passes connections on until it is told, or has passed enough, to cut those that are open."""

    def __init__(self, target: str, cut_after: int | None) -> None:
        self._target = split_address(target)
        self._cut_after = cut_after
        self._pairs: list[tuple[socket.socket, socket.socket]] = []
        self._threads: list[threading.Thread] = []
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.address = f"127.0.0.1:{self._listener.getsockname()[1]}"
        self.passed = self.cuts = 0
        self._spawn(self._accept)

    def cut(self) -> None:
        self.cuts += 1
        for pair in self._pairs:
            for end in pair:
                try:
                    end.shutdown(socket.SHUT_RDWR)
                except OSError:
                    pass
        self._pairs = []

    def close(self) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self.cut()
        for thread in self._threads:
            thread.join()

    def _spawn(self, work: Callable[..., None], *arguments: object) -> None:
        thread = threading.Thread(target=work, args=arguments)
        self._threads.append(thread)
        thread.start()

    def _accept(self) -> None:
        while True:
            try:
                near, _ = self._listener.accept()
            except OSError:
                return
            far = socket.create_connection(self._target)
            self._pairs.append((near, far))
            self._spawn(self._pass, near, far, True)
            self._spawn(self._pass, far, near, False)

    def _pass(self, source: socket.socket, sink: socket.socket, counted: bool) -> None:
        with source:
            try:
                while data := source.recv(1 << 16):
                    sink.sendall(data)
                    self.passed += len(data) * counted
                    if counted and self._cut_after is not None and self.passed > self._cut_after:
                        self._cut_after = None
                        self.cut()
            except OSError:
                pass
            try:
                sink.shutdown(socket.SHUT_RDWR)
            except OSError:
                pass


@contextmanager
def _cuttable(target: str, cut_after: int | None = None) -> Iterator[_Proxy]:
    proxy = _Proxy(target, cut_after)
    try:
        yield proxy
    finally:
        proxy.close()
