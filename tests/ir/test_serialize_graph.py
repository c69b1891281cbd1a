"""Modules with graph functions come back whole, weights beside the table; what was damaged is said."""

from __future__ import annotations

import tracemalloc
from dataclasses import fields
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from crossfarm.compat import envelope
from crossfarm.errors import Error, InvalidModule, NotFound
from crossfarm.ir import constant_files, serialize
from crossfarm.ir.graph import visit
from crossfarm.ir.graph.builder import Builder
from crossfarm.ir.graph.constant import ConstantData
from crossfarm.ir.graph.expr import OperatorCall
from crossfarm.ir.interpreter import evaluate
from crossfarm.ir.module import IRModule
from crossfarm.ir.structural import explain_difference, structural_equal
from crossfarm.wire.v1 import ir_pb2
from tests.ir.graph_programs import dense, every_graph_node, modules, tensor, weights
from tests.ir.programs import scaled
from tests.ir.test_serialize import everything


def message_of(mod: IRModule) -> ir_pb2.Module:
    return ir_pb2.Module.FromString(bytes(envelope.read(serialize.dumps(mod), "ir", (1, 2)).payload))


def tampered(message: ir_pb2.Module) -> bytes:
    """A table in an intact envelope: what only a hostile writer makes."""
    return envelope.write("ir", message.SerializeToString(deterministic=True), 2, 2)


def constants(mod: IRModule) -> list[ConstantData]:
    return [c.data for c in visit.constants(mod)]


def test_every_kind_of_graph_node_comes_back_the_same() -> None:
    mod = every_graph_node()
    back = serialize.loads(serialize.dumps(mod))
    assert explain_difference(mod, back) is None
    assert list(back.functions) == ["main", "split", "same"]
    assert [v.name for v in visit.defined(back["main"])] == [v.name for v in visit.defined(mod["main"])]  # type: ignore[arg-type]
    assert [c.note for c in visit.constants(back)] == ["bias", "w"]
    origins = [e.origin for e in visit.expressions(back["main"]) if isinstance(e, OperatorCall)]  # type: ignore[arg-type]
    assert "Add_1" in origins
    met = {n.WhichOneof("node") for m in (mod, everything()) for n in message_of(m).nodes}
    assert met == {f.name for f in ir_pb2.Node.DESCRIPTOR.oneofs_by_name["node"].fields}


def test_the_table_of_a_function_has_its_fields() -> None:
    wire = {f.name for f in ir_pb2.Module.Function.DESCRIPTOR.fields}
    assert {f.name for f in fields(every_graph_node().graph_functions["main"])} - wire == {"pure"}
    assert wire - {"name", "impure"} == {"params", "body", "result", "attrs", "private"}


@given(modules())
@settings(max_examples=40, deadline=None)
def test_random_graph_functions_come_back_the_same(mod: IRModule) -> None:
    data = serialize.dumps(mod)
    back = serialize.loads(data)
    assert explain_difference(mod, back) is None
    assert serialize.dumps(back) == data
    assert serialize.digest(back) == serialize.digest(mod)


def test_variables_and_sizes_stay_shared() -> None:
    main = serialize.loads(serialize.dumps(dense())).graph_functions["main"]
    assert set(visit.uses(main)) == set(visit.defined(main))
    assert len(visit.sizes(main)) == 1


def test_a_module_without_graph_functions_is_for_readers_of_version_1() -> None:
    opened = envelope.read(serialize.dumps(scaled()), "ir", (1, 1))
    assert (opened.version, opened.min_reader, opened.features) == (2, 1, ())
    assert serialize.min_reader(dense()) == 2
    with pytest.raises(InvalidModule, match="needs a reader of version 2; this one reads 1 to 1"):
        envelope.read(serialize.dumps(dense()), "ir", (1, 1), error=InvalidModule)


def test_small_constants_travel_larger_ones_are_named() -> None:
    data = serialize.dumps(dense(4))
    large, small = constants(serialize.loads(data))
    assert not large.known
    assert large == constants(dense(4))[0]
    np.testing.assert_array_equal(small.array, weights(8, seed=1))
    assert len(data) < 1000
    with pytest.raises(NotFound, match="is not here"):
        large.array


def test_a_file_carries_all_contents(tmp_path: Path) -> None:
    path = tmp_path / "m.cfir"
    mod = dense()
    mod.save(path)
    back = serialize.load_module(path)
    assert structural_equal(mod, back)
    x = weights(3, 512, seed=5)
    np.testing.assert_array_equal(evaluate(back, "main", [x]), evaluate(mod, "main", [x]))
    again = tmp_path / "again.cfir"
    back.save(again)
    assert again.read_bytes() == path.read_bytes()
    assert structural_equal(serialize.loads(path.read_bytes()), mod)
    back.save(path)  # over what is mapped
    np.testing.assert_array_equal(constants(back)[0].array, weights(512, 8))


def test_contents_are_aligned_and_each_is_there_once(tmp_path: Path) -> None:
    b = Builder()
    w, v = weights(2049), weights(1025, seed=3)
    same, flat = b.constant(w), b.constant(w.copy())
    scalar, empty = b.constant(np.float32(3)), b.constant(np.zeros((0, 4), "int8"))
    turned = b.constant(w.reshape(1, 2049))
    mod = IRModule({"main": b.function([same, flat, b.constant(v), turned, scalar, empty])})
    path = tmp_path / "m.cfir"
    mod.save(path)
    back = serialize.load_module(path)
    found = constants(back)
    assert [d.shape for d in found] == [(2049,), (2049,), (1025,), (1, 2049), (), (0, 4)]
    assert found[0] is found[1]
    assert all(d.array.ctypes.data % 64 == 0 for d in found[:3])
    for data, want in zip(found, (w, w, v, w.reshape(1, 2049), np.float32(3), np.zeros((0, 4), "int8"))):
        np.testing.assert_array_equal(data.array, want)
    head = len(serialize.dumps(mod)) + 64
    assert w.nbytes + v.nbytes < path.stat().st_size < head + w.nbytes + v.nbytes + 128


def test_a_module_whose_contents_are_elsewhere_is_not_saved(tmp_path: Path) -> None:
    with pytest.raises(NotFound, match="cannot save module 'Module': the content of constant"):
        serialize.loads(serialize.dumps(dense())).save(tmp_path / "m.cfir")
    assert list(tmp_path.iterdir()) == []


def test_weights_are_neither_copied_nor_read_before_they_are_used(tmp_path: Path) -> None:
    b = Builder()
    mod = IRModule({"main": b.function(b.constant(np.ones((8, 1 << 18), "float32")))})
    path = tmp_path / "m.cfir"
    digest = constants(mod)[0].digest
    tracemalloc.start()
    try:
        mod.save(path)
        back = serialize.load_module(path)
        assert constants(back)[0].digest == digest
        assert float(constants(back)[0].array.sum()) == 8 << 18
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 1 << 20


def test_a_file_that_ends_in_its_weights_is_truncated(tmp_path: Path) -> None:
    path = tmp_path / "m.cfir"
    dense().save(path)
    data = path.read_bytes()
    path.write_bytes(data[:-5])
    with pytest.raises(InvalidModule, match=r"m\.cfir is truncated: \d+ bytes, constant 1 alone ends at \d+"):
        serialize.load_module(path)
    path.write_bytes(data + b"more")
    with pytest.raises(InvalidModule, match=r"m\.cfir is damaged: 4 bytes follow its end"):
        serialize.load_module(path)
    path.write_bytes(serialize.dumps(dense()) + b"more")
    with pytest.raises(InvalidModule, match="4 bytes follow its end"):
        serialize.load_module(path)
    path.write_bytes(b"")
    with pytest.raises(InvalidModule, match="truncated"):
        serialize.load_module(path)


def test_weights_that_were_changed_are_refused_where_they_are_used(tmp_path: Path) -> None:
    path = tmp_path / "m.cfir"
    dense().save(path)
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)
    mod = serialize.load_module(path)
    with pytest.raises(InvalidModule, match=r"constant 1 of .*m\.cfir was changed after it was written"):
        evaluate(mod, "main", [weights(1, 512)])


def test_an_operator_of_the_future_is_named() -> None:
    message = message_of(dense())
    call = next(n for n in message.nodes if n.WhichOneof("node") == "operator_call")
    call.operator_call.op = 99999
    with pytest.raises(InvalidModule, match="graph operator number 99999, which this reader lacks") as caught:
        serialize.loads(tampered(message))
    assert "upgrade crossfarm" in caught.value.hint


def changed(what: str) -> ir_pb2.Module:
    message = message_of(dense(4))
    large, small = message.constants
    match what:
        case "constant 2 of 32 bytes comes with 31":
            small.content = small.content[:-1]
        case "constant 1 must have its content, or a digest":
            large.sha256 = large.sha256[:-1]
        case "constant 2 must have its content, or a digest":
            small.sha256 = bytes(32)
        case "constant 1 has dtype number 77":
            large.dtype = 77
        case "constant 1 is of float32x4 with 2 dimensions":
            large.dtype += 256 * 3
        case "constant 1 is of float32 with 40 dimensions":
            large.shape.extend([1] * 38)
        case "refers to constant 9 of 2":
            next(n for n in message.nodes if n.WhichOneof("node") == "constant").constant.data = 9
        case "constant 1 belongs to nothing":
            next(n for n in message.nodes if n.WhichOneof("node") == "constant").constant.data = 2
        case "where Seq belongs":
            message.functions[0].body = message.functions[0].params[0]
        case "where TensorType or TupleType or ShapeType or PrimType belongs":
            message.functions[0].result = message.functions[0].params[0]
    return message


@pytest.mark.parametrize("said", [
    "constant 2 of 32 bytes comes with 31", "constant 1 must have its content, or a digest",
    "constant 2 must have its content, or a digest", "constant 1 has dtype number 77",
    "constant 1 is of float32x4 with 2 dimensions", "constant 1 is of float32 with 40 dimensions",
    "refers to constant 9 of 2", "constant 1 belongs to nothing", "where Seq belongs",
    "where TensorType or TupleType or ShapeType or PrimType belongs",
])  # fmt: skip
def test_a_malformed_table_is_refused_with_what_is_wrong(said: str) -> None:
    with pytest.raises(InvalidModule, match=said):
        serialize.loads(tampered(changed(said)))


def test_one_digest_of_two_sizes_is_refused(tmp_path: Path) -> None:
    message = message_of(dense())
    message.constants.add(dtype=message.constants[0].dtype, shape=[2], sha256=message.constants[0].sha256)
    payload = message.SerializeToString(deterministic=True)
    data = envelope.write("ir", payload, 2, 2, [constant_files.FEATURE]) + bytes(1 << 15)
    with pytest.raises(InvalidModule, match=r"constant 3 has 8 bytes, another one of digest .* has 16384"):
        serialize.loads(data)


def test_attributes_that_the_format_has_no_place_for_are_refused() -> None:
    b = Builder()
    x = b.parameter("x", tensor(4))
    call = OperatorCall("add", (x, x), {"k": [1, 2]})  # type: ignore[dict-item]
    mod = IRModule({"main": b.function(b.bind(call, type=x.type))})
    with pytest.raises(InvalidModule, match="an attribute holds a list"):
        serialize.dumps(mod)
    b = Builder()
    mod = IRModule({"main": b.function(b.bind(OperatorCall("no.such", ()), type=x.type))})
    with pytest.raises(InvalidModule, match=r"OperatorCall\.op holds 'no\.such', not a known graph operator"):
        serialize.dumps(mod)


PAYLOAD = message_of(every_graph_node()).SerializeToString(deterministic=True)
edits = st.lists(st.tuples(st.integers(0, len(PAYLOAD) - 1), st.integers(0, 255)), min_size=1, max_size=4)


@given(edits)
@settings(max_examples=200, deadline=None)
def test_no_change_to_the_content_ever_raises_anything_but_an_error_of_ours(changes: list[tuple[int, int]]) -> None:
    data = bytearray(PAYLOAD)
    for position, value in changes:
        data[position] = value
    try:
        mod = serialize.loads(envelope.write("ir", bytes(data), 2, 2))
        serialize.loads(envelope.write("ir", bytes(data), 2, 2), check=True)
    except Error:
        return
    assert serialize.loads(serialize.dumps(mod))
