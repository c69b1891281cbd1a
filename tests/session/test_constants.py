"""Functions with constants: the client brings them to the device, prepares them there and binds them to every call."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

import crossfarm as cf
from clients.sdk.device import Device
from crossfarm.artifact import Artifact
from tests.session import model as sample
from tests.session.harness import open_device
from tests.session.model import CONTENT, EXPECTED, SIZE, V_DIGEST, W_DIGEST, V, W, X


@pytest.fixture(scope="session")
def core() -> Artifact:
    return sample.build()


@pytest.fixture(scope="session")
def model(core: Artifact, tmp_path_factory: pytest.TempPathFactory) -> Artifact:
    """With its constants, out of a file."""
    path = tmp_path_factory.mktemp("model") / "model.cfa"
    core.with_constants(CONTENT).save(path)
    return Artifact.open(path)


@pytest.fixture
def device(tmp_path: Path) -> Iterator[Device]:
    with open_device("cpu", tmp_path) as opened:
        yield opened


def uploads(device: Device) -> Callable[[], int]:
    """Bytes sent from here on."""
    send = device._session.send
    sent = [0]

    def counting(frames: object, wanted: object) -> None:
        frames = list(frames)  # type: ignore[call-overload]
        sent[0] += sum(len(payload) for _, payload in frames if payload is not None)
        send(frames, wanted)  # type: ignore[arg-type]

    device._session.send = counting  # type: ignore[method-assign,assignment]
    return lambda: sent[0]


@pytest.mark.parametrize("driver", ["cpu", "opencl", "vulkan", "reference"])
def test_callers_give_the_inputs_alone(driver: str, model: Artifact, tmp_path: Path) -> None:
    with open_device(driver, tmp_path) as device:
        main = device.load(model)["main"]
        assert str(main.signature) == "main(X: float32[n]) -> Y: float32[n]"
        np.testing.assert_array_equal(main(X), EXPECTED)
        y = np.zeros(3, np.float32)
        assert main(X, out=y) is y
        np.testing.assert_array_equal(y, EXPECTED)
        np.testing.assert_array_equal(main(X, y), EXPECTED)
        np.testing.assert_array_equal(main.submit(X).result(), EXPECTED)
        with device.tensor(X) as x, device.empty((3,)) as out:
            np.testing.assert_array_equal(main(x).numpy(), EXPECTED)
            for _ in range(2):
                assert main(x, out=out) is out
            np.testing.assert_array_equal(out.numpy(), EXPECTED)
        assert len(main.benchmark(X, repeat=2, min_repeat_ms=0).samples) == 2


def test_a_function_of_constants_alone_gives_arrays(model: Artifact, device: Device) -> None:
    loaded = device.load(model)
    np.testing.assert_array_equal(loaded["other"](), W + 1)
    np.testing.assert_array_equal(loaded["main_prepare"]()[0], V[:2] * 10 + W[:2] - 100)


def test_each_content_is_sent_once_however_many_use_it(model: Artifact, device: Device) -> None:
    sent = uploads(device)
    loaded, again = device.load(model), device.load(model)
    assert loaded.source == again.source
    core_bytes = sent()
    for _ in range(2):
        loaded["main"](X)
        loaded["other"]()
    again["other"]()
    assert sent() - core_bytes == W.nbytes + V.nbytes + 2 * X.nbytes


def test_a_wrong_argument_is_told_before_constants_are_sent(model: Artifact, device: Device) -> None:
    main = device.load(model)["main"]
    sent = uploads(device)
    with pytest.raises(cf.ArgumentError, match="takes 1 argument"):
        main(X, W, X)
    with pytest.raises(cf.ArgumentError, match="float32"):
        main(X.astype(np.int8))
    assert sent() == 0


def test_the_next_lease_finds_them_there_and_needs_no_content(core: Artifact, model: Artifact, tmp_path: Path) -> None:
    with open_device("cpu", tmp_path) as device:
        device.load(model)["main"](X)
    with open_device("cpu", tmp_path) as device:
        main = device.load(core)["main"]
        sent = uploads(device)
        np.testing.assert_array_equal(main(X), EXPECTED)
        assert sent() == X.nbytes


def test_missing_content_is_named_with_where_to_get_it(core: Artifact, device: Device) -> None:
    loaded = device.load(core)
    with pytest.raises(cf.NotFound, match=rf"2 constants.*: W \({W_DIGEST[:12]}\), V \({V_DIGEST[:12]}\)") as failure:
        loaded["main"](X)
    assert "the file" in failure.value.hint
    np.testing.assert_array_equal(device.load(core.with_constants(CONTENT))["other"](), W + 1)


def test_changed_content_never_reaches_the_device(core: Artifact, device: Device) -> None:
    wrong = {digest: memoryview(bytes(len(content))) for digest, content in CONTENT.items()}
    with pytest.raises(cf.InvalidArtifact, match="was changed"):
        device.load(core.with_constants(wrong))["other"]()


def test_memory_is_for_what_is_still_needed(model: Artifact, tmp_path: Path) -> None:
    """V is given back once P is made of it, and everything when the artifact is unloaded."""
    with open_device("cpu", tmp_path, memory_bytes=3 * W.nbytes) as device:
        loaded = device.load(model)
        loaded["main"](X)
        with device.empty((SIZE,)) as rest:
            rest.numpy()
        for _ in range(3):
            loaded.unload()
            loaded = device.load(model)
            np.testing.assert_array_equal(loaded["main"](X), EXPECTED)


def test_constants_that_do_not_fit_are_a_clear_failure_and_may_be_tried_again(model: Artifact, tmp_path: Path) -> None:
    with open_device("cpu", tmp_path, memory_bytes=3 * W.nbytes) as device:
        loaded = device.load(model)
        with device.empty((2 * SIZE,)) as taken:
            taken.numpy()
            with pytest.raises(cf.LimitExceeded, match="device memory"):
                loaded["main"](X)
        np.testing.assert_array_equal(loaded["main"](X), EXPECTED)


def test_threads_share_what_one_of_them_brings(model: Artifact, device: Device) -> None:
    loaded = device.load(model)
    sent = uploads(device)
    results: list[np.ndarray] = []
    threads = [threading.Thread(target=lambda: results.append(loaded["main"](X))) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(results) == 4
    assert all(np.array_equal(result, EXPECTED) for result in results)
    assert sent() == W.nbytes + V.nbytes + 4 * X.nbytes
