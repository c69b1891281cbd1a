"""What is written is read back whole; what is not what was written is refused, whatever it is."""

from __future__ import annotations

import json
import math
from dataclasses import fields, replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from crossfarm.compat import envelope
from crossfarm.errors import Error, InvalidModule, VerifyError
from crossfarm.frontends.tvmscript import parse
from crossfarm.ir import schema, serialize, table_writer
from crossfarm.ir.buffer import BufferRegion
from crossfarm.ir.expr import (
    BINARY_OPS,
    Broadcast,
    BufferLoad,
    Call,
    Cast,
    Expr,
    FloatImm,
    IntImm,
    Let,
    Not,
    Ramp,
    Range,
    Select,
    StringImm,
    Var,
)
from crossfarm.ir.function import PrimFunc
from crossfarm.ir.intrinsics import INTRINSICS
from crossfarm.ir.module import IRModule
from crossfarm.ir.stmt import (
    AXIS_KINDS,
    LOOP_KINDS,
    Allocate,
    AssertStmt,
    AttrStmt,
    Block,
    BufferStore,
    Evaluate,
    For,
    IfThenElse,
    IterVar,
    LetStmt,
    MatchBufferRegion,
    SeqStmt,
    Stmt,
    While,
)
from crossfarm.ir.structural import explain_difference, structural_equal
from crossfarm.wire.v1 import ir_pb2
from tests.ir.programs import TRUE, buffer, f32, i32, load, loop, module, op, realize, root, row_sums, scaled, store


def everything() -> IRModule:
    """Every kind of node, operator, intrinsic, dtype, loop, axis, scope and attribute value, each at least once."""
    n, x = Var("n", "int64"), Var("x", "float32")
    a = buffer("A", n, 4, strides=(i32(8), i32(1)), elem_offset=Var("o"), align=16)
    temporary = buffer("T", 4, scope="local")
    view = buffer("W", 2, scope="shared", strides=(Var("s"),))
    shared = buffer("S", 4, scope="shared")
    region = BufferRegion(shared, (Range(i32(0), i32(2)),))
    axes = tuple(IterVar(Var(f"v{k}"), Range(i32(0), i32(2)), k) for k in AXIS_KINDS)
    inner = Block("b", axes, (region,), (region,), store(view, f32(0), 0), init=store(view, f32(1), 0),
                  match_buffers=(MatchBufferRegion(view, region),), annotations={"k": ("v", 1)})  # fmt: skip
    statements: list[Stmt] = [
        *(Evaluate(op(name, i32(1), i32(2))) for name in BINARY_OPS),
        *(Evaluate(Call(name, (i32(1),), "float16x4")) for name in INTRINSICS),
        *(Evaluate(Cast(i32(1), dtype)) for dtype in schema.DTYPES.id_of),
        *(loop(Var("i"), 2, SeqStmt(()), kind=kind, annotations={"n": n}) for kind in LOOP_KINDS),
        loop(Var("t"), 2, SeqStmt(()), kind="thread_binding", thread="threadIdx.x"),
        While(Not(TRUE), SeqStmt(())),
        IfThenElse(TRUE, SeqStmt(()), Evaluate(StringImm("é∀"))),
        IfThenElse(TRUE, SeqStmt(())),
        LetStmt(x, FloatImm(math.inf), Evaluate(Let(Var("y"), i32(1), Select(TRUE, x, f32(-0.0))))),
        AssertStmt(TRUE, "it holds"),
        AttrStmt("pragma", ("a", 2.5, True, None, {"z": i32(1)}), SeqStmt(()), node="A"),
        AttrStmt("none", None, Allocate(temporary, SeqStmt(()), {"volatile": True})),
        BufferStore(temporary, Broadcast(f32(math.nan), 4), (Ramp(i32(0), i32(1), 4),)),
        Evaluate(BufferLoad(a, (n, IntImm((1 << 64) - 1, "uint64")))),
        Evaluate(IntImm(-(1 << 63), "int64")),
        realize(inner, *(i32(0) for _ in axes)),
    ]
    body = root(SeqStmt(tuple(statements)), shared)
    func = PrimFunc((a, n), body, {"global_symbol": "main", "list": ()}, private=True)
    return IRModule({"main": func, "other": scaled()["main"]}, {"flag": False, "big": -(1 << 63)}, name="All")


def tampered(payload: bytes) -> bytes:
    """A payload in an intact envelope: what only a hostile writer makes."""
    return envelope.write("ir", payload, 1, 1)


def payload_of(mod: IRModule) -> bytes:
    return bytes(envelope.read(serialize.dumps(mod), "ir", (1, 1)).payload)


def test_every_kind_of_node_comes_back_the_same() -> None:
    mod = everything()
    back = serialize.loads(serialize.dumps(mod))
    assert explain_difference(mod, back) is None
    assert (back.name, list(back.functions)) == ("All", ["main", "other"])
    assert [p.name for p in back["main"].params] == ["A", "n"]
    met = {node.WhichOneof("node") for node in ir_pb2.Module.FromString(payload_of(mod)).nodes}
    graphs = {spec.wire for spec in schema.SPECS if spec.since == 2}  # see test_serialize_graph.py
    assert met == {f.name for f in ir_pb2.Node.DESCRIPTOR.oneofs_by_name["node"].fields} - graphs


def test_the_table_and_the_proto_have_the_same_fields() -> None:
    for spec in schema.SPECS:
        wire = ir_pb2.Node.DESCRIPTOR.fields_by_name[spec.wire].message_type
        assert wire is not None
        assert {f.name for f in spec.fields} == {f.name for f in wire.fields}
        assert {f.name for f in spec.fields} == {f.name for f in fields(spec.cls)}


def test_variables_and_buffers_stay_shared() -> None:
    func = serialize.loads(serialize.dumps(scaled()))["main"]
    a = func.params[0]
    found = [n for n in _all(func.body) if isinstance(n, BufferLoad)]
    assert found
    assert all(n.buffer is a for n in found)
    assert func.params[0].shape[0] is func.params[1].shape[0]  # type: ignore[union-attr]


def _all(node: object) -> list[object]:
    found, stack = [], [node]
    while stack:
        item = stack.pop()
        found.append(item)
        stack.extend(child for _, child in schema.children(item))
    return found


def test_bytes_are_canonical() -> None:
    data = serialize.dumps(everything())
    assert serialize.dumps(everything()) == data
    assert serialize.dumps(serialize.loads(data)) == data
    turned = replace(scaled()["main"], attrs={"b": 1, "a": 2})
    ordered = replace(scaled()["main"], attrs={"a": 2, "b": 1})
    assert serialize.dumps(IRModule({"main": turned})) == serialize.dumps(IRModule({"main": ordered}))


def test_the_digest_is_of_the_content_alone() -> None:
    assert serialize.digest(scaled()) == serialize.digest(serialize.loads(serialize.dumps(scaled())))
    assert serialize.digest(scaled()) != serialize.digest(scaled(3.0))


def test_every_corpus_program_comes_back_the_same(corpus: Path) -> None:
    for case in json.loads((corpus / "index.json").read_text()):
        mod = parse((corpus / f"{case['name']}.py").read_text(), case["name"])
        back = serialize.loads(serialize.dumps(mod), check=True)
        assert explain_difference(mod, back) is None
        assert back.script() == mod.script()


def test_a_file_is_written_whole_or_not_at_all(tmp_path: Path) -> None:
    path = tmp_path / "m.cfir"
    scaled().save(path)
    assert structural_equal(serialize.load_module(path), scaled())
    before = path.read_bytes()
    with pytest.raises(InvalidModule):
        serialize.save_module(IRModule({"main": replace(scaled()["main"], attrs={"x": object()})}), path)  # type: ignore[dict-item]
    with pytest.raises(OSError, match="directory"):
        serialize.save_module(row_sums(), tmp_path / "missing" / "m.cfir")
    assert path.read_bytes() == before
    assert [p.name for p in tmp_path.iterdir()] == ["m.cfir"]


def test_errors_about_a_file_name_it(tmp_path: Path) -> None:
    path = tmp_path / "m.cfir"
    path.write_bytes(serialize.dumps(scaled())[:-3])
    with pytest.raises(InvalidModule, match=r"m\.cfir is truncated"):
        serialize.load_module(path)


def test_a_module_from_the_future_is_refused_with_what_it_needs() -> None:
    with pytest.raises(InvalidModule, match="needs a reader of version 3; this one reads 1 to 2"):
        serialize.loads(envelope.write("ir", b"", 3, 3))


def test_a_feature_of_the_future_is_refused_by_name() -> None:
    with pytest.raises(InvalidModule, match="does not know: tensor_cores"):
        serialize.loads(envelope.write("ir", payload_of(scaled()), 1, 1, ["tensor_cores"]))


def test_min_reader_is_the_newest_thing_really_used(monkeypatch: pytest.MonkeyPatch) -> None:
    assert serialize.min_reader(everything()) == 1
    monkeypatch.setattr(schema.OPERATORS, "_since", {"mul": 4})
    assert serialize.min_reader(scaled()) == 4
    assert serialize.min_reader(row_sums()) == 1


def test_loading_checks_well_formedness_on_request() -> None:
    data = serialize.dumps(module(Evaluate(op("add", i32(1), f32(1)))))
    assert serialize.loads(data)
    with pytest.raises(VerifyError, match="operands-agree"):
        serialize.loads(data, check=True)


def one_node(**content: object) -> ir_pb2.Module:
    message = ir_pb2.Module()
    node = message.nodes.add()
    for name, value in content.items():
        getattr(node, name).CopyFrom(value)
    return message


def chained(depth: int) -> ir_pb2.Module:
    message = ir_pb2.Module()
    message.nodes.add().seq.SetInParent()
    for reference in range(1, depth):
        message.nodes.add().seq.stmts.append(reference)
    return message


BROKEN = {
    "refers to node 5, which is not before it": one_node(evaluate=ir_pb2.Node.Evaluate(value=5)),
    "refers to node 0": one_node(evaluate=ir_pb2.Node.Evaluate(value=0)),
    "operator number 99": one_node(binary=ir_pb2.Node.Binary(op=99)),
    "dtype number 99": one_node(var=ir_pb2.Node.Var(dtype=99)),
    "dtype number 4294967295": one_node(var=ir_pb2.Node.Var(dtype=(1 << 32) - 1)),
    "dtype number 0": one_node(var=ir_pb2.Node.Var()),
    "loop kind number 0": one_node(for_loop=ir_pb2.Node.For()),
    "of a kind this reader does not know": one_node(),
    "belongs to nothing": one_node(seq=ir_pb2.Node.SeqStmt()),
    "1 keys and 0 values": one_node(map_value=ir_pb2.Node.MapValue(keys=["a"])),
}


@pytest.mark.parametrize("said", BROKEN)
def test_a_malformed_table_is_refused_with_what_is_wrong(said: str) -> None:
    message = BROKEN[said]
    if said.startswith(("loop", "operator")):
        # what comes before the number in the table of fields has to be there
        variable = ir_pb2.Node(var=ir_pb2.Node.Var(name="v", dtype=4))
        nodes = [variable, variable, variable, ir_pb2.Node(seq=ir_pb2.Node.SeqStmt()), *message.nodes]
        message = ir_pb2.Module(nodes=nodes)
        last = message.nodes[-1]
        if last.WhichOneof("node") == "for_loop":
            last.for_loop.var, last.for_loop.min, last.for_loop.extent, last.for_loop.body = 1, 2, 3, 4
    with pytest.raises(InvalidModule, match=said):
        serialize.loads(tampered(message.SerializeToString()))


def test_a_node_with_two_parents_is_refused() -> None:
    message = ir_pb2.Module()
    message.nodes.add().int_imm.dtype = 4
    message.nodes.add().binary.MergeFrom(ir_pb2.Node.Binary(op=1, a=1, b=1))
    with pytest.raises(InvalidModule, match="already belongs to another"):
        serialize.loads(tampered(message.SerializeToString()))


def test_a_node_of_the_wrong_class_is_refused() -> None:
    message = ir_pb2.Module()
    message.nodes.add().seq.SetInParent()
    message.nodes.add().evaluate.value = 1
    with pytest.raises(InvalidModule, match="node 1, SeqStmt, where Expr belongs"):
        serialize.loads(tampered(message.SerializeToString()))


def test_a_program_that_nests_too_deep_is_refused_both_ways() -> None:
    with pytest.raises(InvalidModule, match="nests deeper than 200"):
        serialize.loads(tampered(chained(50_000).SerializeToString()))
    e: Expr = f32(1)
    for _ in range(50_000):
        e = op("add", e, f32(1))
    with pytest.raises(InvalidModule, match="nests deeper than 200"):
        serialize.dumps(module(Evaluate(e)))


def test_a_program_that_shares_expressions_is_written_as_the_tree_it_is() -> None:
    a, one = buffer("A", 4), f32(1)
    mod = module(store(a, op("add", one, one), 0), a)
    assert structural_equal(serialize.loads(serialize.dumps(mod)), mod)


def test_sharing_that_explodes_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(table_writer, "MAX_NODES", 1000)
    e: Expr = f32(1)
    for _ in range(100):
        e = op("add", e, e)
    with pytest.raises(InvalidModule, match="more than 1000 nodes"):
        serialize.dumps(module(Evaluate(e)))


@pytest.mark.parametrize(("what", "mod"), [
    ("dtype 'int7'", module(Evaluate(Cast(i32(1), "int7")))),
    ("Binary.op holds 'nand'", module(Evaluate(op("nand", i32(1), i32(1))))),
    ("does not fit 64 bits", module(Evaluate(IntImm(1 << 70, "int64")))),
    ("attribute value .* does not fit int64", IRModule({}, {"k": 1 << 70})),
    ("not valid Unicode", IRModule({}, {"k": "\ud800"})),
    ("holds a set", IRModule({}, {"k": {1}})),  # type: ignore[dict-item]
    ("For.body holds Var", module(For(Var("i"), i32(0), i32(1), Var("x")))),  # type: ignore[arg-type]
    ("Call.op holds 'system'", module(Evaluate(Call("system", (), "int32")))),
    ("BufferLoad.indices holds", module(Evaluate(BufferLoad(buffer("A", 4), [i32(0)])))),  # type: ignore[arg-type]
])  # fmt: skip
def test_what_the_format_has_no_place_for_is_refused(what: str, mod: IRModule) -> None:
    with pytest.raises(InvalidModule, match=what):
        serialize.dumps(mod)


EVERYTHING = serialize.dumps(everything())
PAYLOAD = payload_of(everything())
edits = st.lists(st.tuples(st.integers(0, len(PAYLOAD) - 1), st.integers(0, 255)), min_size=1, max_size=4)


@given(edits)
@settings(max_examples=400)
def test_no_change_to_the_content_ever_raises_anything_but_an_error_of_ours(changes: list[tuple[int, int]]) -> None:
    data = bytearray(PAYLOAD)
    for position, value in changes:
        data[position] = value
    try:
        mod = serialize.loads(tampered(bytes(data)))
        serialize.loads(tampered(bytes(data)), check=True)
    except Error:
        return
    assert serialize.loads(serialize.dumps(mod))


@given(st.integers(0, len(PAYLOAD)), st.integers(0, len(PAYLOAD)), st.integers(0, len(PAYLOAD)))
@settings(max_examples=150)
def test_no_cut_or_copy_of_the_content_does_either(start: int, stop: int, to: int) -> None:
    data = PAYLOAD[:to] + PAYLOAD[start:stop] + PAYLOAD[to + max(stop - start, 0) :]
    try:
        serialize.loads(tampered(data), check=True)
    except Error:
        return


hostile = st.tuples(st.integers(0, 1 << 16), st.integers(0, 7), st.sampled_from([0, 1, 2, 3, 7, 13, 40, 259, 1 << 31]))


@given(st.lists(hostile, min_size=1, max_size=4))
@settings(max_examples=200)
def test_no_number_in_an_intact_table_does(changes: list[tuple[int, int, int]]) -> None:
    message = ir_pb2.Module.FromString(PAYLOAD)
    for position, which, value in changes:
        node = message.nodes[position % len(message.nodes)]
        content = getattr(node, node.WhichOneof("node") or "")
        numbers = [f for f in getattr(content, "DESCRIPTOR", ir_pb2.Node.NoneValue.DESCRIPTOR).fields
                   if f.cpp_type == f.CPPTYPE_UINT32]  # fmt: skip
        if not numbers:
            continue
        field = numbers[which % len(numbers)]
        if field.is_repeated:
            getattr(content, field.name).append(value)
        else:
            setattr(content, field.name, value)
    try:
        serialize.loads(tampered(message.SerializeToString()), check=True)
    except Error:
        return


@given(st.binary(max_size=200))
def test_no_bytes_at_all_do(data: bytes) -> None:
    for candidate in (data, tampered(data), EVERYTHING + data, EVERYTHING[: len(data)] + data):
        try:
            serialize.loads(candidate)
        except InvalidModule:
            continue


def test_indices_keep_their_order() -> None:
    a = buffer("A", 2, 3)
    mod = module(Evaluate(load(a, 1, 2)), a)
    assert structural_equal(serialize.loads(serialize.dumps(mod)), mod)
    assert not structural_equal(mod, module(Evaluate(load(a, 1, 1)), a))
