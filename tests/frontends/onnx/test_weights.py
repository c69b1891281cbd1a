"""Weights stay where they are until they are needed, and what is wrong with them is said."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, external_data_helper, helper, numpy_helper

from crossfarm.errors import InvalidModule, NotFound
from crossfarm.frontends.onnx import load_onnx
from crossfarm.ir.graph.expr import Constant, OperatorCall
from crossfarm.ir.module import IRModule
from tests.frontends.onnx.models import F32, call, model, tensor

WEIGHT = np.random.default_rng(1).standard_normal((64, 32)).astype(np.float32)
X = np.ones((2, 64), np.float32)


def product() -> onnx.ModelProto:
    return model(
        [helper.make_node("MatMul", ["x", "w"], ["y"])], [tensor("x", F32, [2, 64])], [tensor("y", F32, [2, 32])],
        {"w": WEIGHT},
    )  # fmt: skip


def external(folder: Path, location: str = "weights.bin", offset: int = 128, length: int = WEIGHT.nbytes) -> Path:
    made = product()
    weight = made.graph.initializer[0]
    (folder / "weights.bin").write_bytes(b"\0" * 128 + weight.raw_data)
    external_data_helper.set_external_data(weight, location, offset, length)
    weight.ClearField("raw_data")
    path = folder / "model.onnx"
    path.write_bytes(made.SerializeToString())
    return path


def constant(module: IRModule) -> Constant:
    (block,) = module.graph_functions["main"].body.blocks
    operator = block.bindings[0].value
    assert isinstance(operator, OperatorCall)
    found = operator.args[1]
    assert isinstance(found, Constant)
    return found


def backing(array: np.ndarray) -> object:
    """What an array's memory belongs to."""
    while isinstance(array.base, np.ndarray):
        array = array.base
    held = array.base.obj if isinstance(array.base, memoryview) else array.base
    return backing(held) if isinstance(held, np.ndarray) else held


def test_weights_in_a_file_are_views_of_the_file(tmp_path: Path) -> None:
    path = tmp_path / "model.onnx"
    path.write_bytes(product().SerializeToString())
    module = load_onnx(path)
    assert type(backing(constant(module).data.array)).__name__ == "mmap"
    np.testing.assert_allclose(call(module, X)[0], X @ WEIGHT, 1e-5, 1e-5)


def test_weights_in_bytes_are_views_of_the_bytes() -> None:
    content = product().SerializeToString()
    assert backing(constant(load_onnx(content)).data.array) is content


def test_external_weights_are_views_of_their_file(tmp_path: Path) -> None:
    module = load_onnx(external(tmp_path))
    assert type(backing(constant(module).data.array)).__name__ == "mmap"
    np.testing.assert_array_equal(constant(module).data.array, WEIGHT)


def test_a_large_model_is_read_without_its_weights(tmp_path: Path) -> None:
    """256 MB of weights, which a reader that copied them even once would show."""
    path = tmp_path / "large.onnx"
    head = product()
    head.graph.initializer[0].raw_data = b""
    weight = TensorProto(name="w", dims=[64, 1 << 20], data_type=F32)
    del head.graph.initializer[:]
    tail = weight.SerializeToString()
    size = 64 << 22
    content = tail + b"\x4a" + _varint(size)
    field = b"\x2a" + _varint(len(content) + size) + content
    graph = head.graph.SerializeToString()
    head.ClearField("graph")
    with path.open("wb") as file:
        file.write(head.SerializeToString() + b"\x3a" + _varint(len(graph) + len(field) + size) + graph + field)
        file.truncate(file.tell() + size)  # a hole: zeros that take no room on the disk
    code = (
        "import resource, sys\n"
        "from crossfarm.frontends.onnx import load_onnx\n"
        "import onnx, crossfarm.frontends.onnx.importer, crossfarm.frontends.onnx.converters\n"
        "before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss\n"
        f"load_onnx({str(path)!r})\n"
        "print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)\n"
    )
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert int(ran.stdout) < 32 << 10  # KiB


def _varint(value: int) -> bytes:
    found = bytearray()
    while value >= 0x80:
        found.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*found, value])


def test_small_integers_are_unpacked() -> None:
    values = np.array([-8, -1, 0, 7, 3], np.int8)
    packed = helper.make_tensor("w", TensorProto.INT4, [5], values)
    made = model([helper.make_node("Cast", ["w"], ["y"], to=F32)], [], [tensor("y", F32, [5])])
    made.graph.initializer.append(packed)
    np.testing.assert_array_equal(call(load_onnx(made))[0], values)


def test_a_missing_file_of_weights_is_named(tmp_path: Path) -> None:
    path = external(tmp_path)
    (tmp_path / "weights.bin").unlink()
    with pytest.raises(NotFound, match=r"tensor 'w' is in 'weights\.bin', and there is no such file"):
        load_onnx(path)


def test_weights_outside_the_folder_are_refused(tmp_path: Path) -> None:
    inner = tmp_path / "inner"
    inner.mkdir()
    (tmp_path / "secret").write_bytes(b"\0" * (128 + WEIGHT.nbytes))
    for location in ("../secret", str(tmp_path / "secret")):
        with pytest.raises(InvalidModule, match="outside the model's folder"):
            load_onnx(external(inner, location))
    os.symlink(tmp_path / "secret", inner / "link")
    with pytest.raises(InvalidModule, match="outside the model's folder"):
        load_onnx(external(inner, "link"))


def test_weights_beyond_their_file_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InvalidModule, match=f"bytes 129 to {129 + WEIGHT.nbytes} of 'weights.bin', which has"):
        load_onnx(external(tmp_path, offset=129))
    with pytest.raises(InvalidModule, match=r"holds 4 bytes; float32\[64, 32\] has 8192"):
        load_onnx(external(tmp_path, length=4))


def test_external_weights_need_a_path(tmp_path: Path) -> None:
    with pytest.raises(InvalidModule, match="the model came without a folder"):
        load_onnx(external(tmp_path).read_bytes())


def test_cut_files_are_refused(tmp_path: Path) -> None:
    content = product().SerializeToString()
    for length in range(1, len(content), 97):
        with pytest.raises(InvalidModule):
            load_onnx(content[:length])


def test_what_is_no_model_is_refused(tmp_path: Path) -> None:
    weight = numpy_helper.from_array(WEIGHT).SerializeToString()
    for content in (b"\0" * 64, b"plain text, no model at all", np.random.default_rng(0).bytes(2048), weight):
        with pytest.raises(InvalidModule):
            load_onnx(content)
    empty = tmp_path / "empty.onnx"
    empty.touch()
    with pytest.raises(InvalidModule, match="is empty"):
        load_onnx(empty)
    with pytest.raises(InvalidModule, match="cannot be read: No such file"):
        load_onnx(tmp_path / "absent.onnx")


@pytest.mark.parametrize("location", ["a\0b", "a" * 5000, "circle"])
def test_a_path_of_weights_that_is_none(tmp_path: Path, location: str) -> None:
    (tmp_path / "circle").symlink_to("circle")
    made = model([helper.make_node("Relu", ["w"], ["y"])], [], [tensor("y", F32, [4])])
    weights = made.graph.initializer.add(name="w", data_type=F32, dims=[4], data_location=TensorProto.EXTERNAL)
    weights.external_data.add(key="location", value=location)
    onnx.save_model(made, tmp_path / "m.onnx")
    with pytest.raises(InvalidModule, match="which is no path"):
        load_onnx(tmp_path / "m.onnx")
