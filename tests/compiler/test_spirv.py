"""Kernels as SPIR-V: control flow, memory, arguments, and what is refused."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from compiler_service.codegen.kernel import Kernel
from compiler_service.codegen.spirv import emit_module
from compiler_service.codegen.spirv_functions import FUNCTIONS
from compiler_service.codegen.spirv_text import assembly
from crossfarm.artifact.buffer_parts import PART_BYTES
from crossfarm.artifact.push_constants import pack_push_constants, push_constant_layout
from crossfarm.errors import BuildFailed
from crossfarm.ir import dtype as dt
from crossfarm.ir import ops
from crossfarm.ir.buffer import Buffer
from crossfarm.ir.expr import Binary, BufferLoad, Call, Cast, Expr, FloatImm, IntImm, Let, Not, Select, StringImm, Var
from crossfarm.ir.stmt import (
    Allocate,
    AssertStmt,
    AttrStmt,
    BufferStore,
    Evaluate,
    For,
    IfThenElse,
    LetStmt,
    Stmt,
    While,
)
from crossfarm.ir.visitor import seq
from crossfarm.target import Target
from device_agent.drivers.vulkan_queue import Queue
from tests.compiler.operators import assert_same_bits, edges
from tests.compiler.vulkan_device import (
    BARE,
    FULL,
    disassembled,
    element_kernel,
    generated,
    launch,
    one_thread,
    open_queue,
)
from tests.conftest import ROOT


@pytest.fixture(scope="module")
def queue() -> Iterator[Queue]:
    opened = open_queue()
    yield opened
    opened.close()


def i32(value: int) -> IntImm:
    return IntImm(value, "int32")


def f32(value: float) -> FloatImm:
    return FloatImm(value, "float32")


def loop(body: Stmt, var: Var, extent: Expr | int, start: Expr | int = 0, kind: str = "serial") -> For:
    first, count = (IntImm(e, var.dtype) if isinstance(e, int) else e for e in (start, extent))
    return For(var, first, count, body, kind)


def buffer(name: str, size: int | Expr, dtype: str = "float32", scope: str = "global") -> Buffer:
    return Buffer(name, (i32(size) if isinstance(size, int) else size,), dtype, scope=scope)


def barrier() -> Stmt:
    return Evaluate(Call("storage_sync", (StringImm("shared"),), "int32"))


A, B = buffer("A", 64), buffer("B", 64)
_UNARY = ("exp", "log", "sin", "atan", "erf", "asinh")


# --- control flow


@pytest.mark.parametrize("dtype", ["int32", "int64", "uint8", "int16"])
@pytest.mark.parametrize("kind", ["serial", "unrolled", "vectorized", "parallel"])
def test_loops_run_over_their_range(queue: Queue, dtype: str, kind: str) -> None:
    i, j = Var("i", dtype), Var("j", dtype)
    out = Buffer("out", (IntImm(64, dtype),), "int32")
    inner = loop(BufferStore(out, ops.add(BufferLoad(out, (i,)), Cast(j, "int32")), (i,)), j, 5, start=3, kind=kind)
    array = np.zeros(64, np.int32)
    launch(queue, one_thread(loop(inner, i, 60, start=2), [out]), [array])
    np.testing.assert_array_equal(array, [0] * 2 + [3 + 4 + 5 + 6 + 7] * 60 + [0] * 2)


def test_loops_with_bounds_of_data_run_as_often_as_those_say(queue: Queue) -> None:
    counts, out, i, j = buffer("counts", 4, "int64"), buffer("out", 4, "int64"), Var("i", "int64"), Var("j", "int64")
    count = BufferLoad(counts, (i,))
    body = loop(BufferStore(out, ops.add(BufferLoad(out, (i,)), j), (i,)), j, count, start=ops.mul(count, 2))
    given, array = np.array([0, -3, 1, 10]), np.zeros(4, np.int64)
    launch(queue, one_thread(loop(body, i, 4), [counts, out]), [given, array])
    np.testing.assert_array_equal(array, [0, 0, 2, sum(range(20, 30))])


def test_while_runs_until_its_condition_fails(queue: Queue) -> None:
    x, steps = buffer("x", 1, "int32"), buffer("steps", 1, "int32")
    value = BufferLoad(x, (i32(0),))
    halved = ops.select(
        ops.compare("eq", ops.floormod(value, 2), 0), ops.floordiv(value, 2), ops.add(ops.mul(value, 3), 1)
    )
    count = BufferStore(steps, ops.add(BufferLoad(steps, (i32(0),)), 1), (i32(0),))
    body = While(ops.compare("ne", value, 1), seq(BufferStore(x, halved, (i32(0),)), count))
    start, counted = np.array([27], np.int32), np.zeros(1, np.int32)
    launch(queue, one_thread(body, [x, steps]), [start, counted])
    assert (start[0], counted[0]) == (1, 111)


def test_branches_nest_and_guard_what_they_enclose(queue: Queue) -> None:
    i = Var("i", "int32")
    value = BufferLoad(A, (i,))
    middle = IfThenElse(ops.compare("gt", value, f32(0.5)), BufferStore(B, f32(1), (i,)), BufferStore(B, f32(2), (i,)))
    last = IfThenElse(ops.compare("eq", i, 63), BufferStore(B, f32(9), (i,)))
    body = seq(IfThenElse(ops.compare("lt", i, 40), middle, BufferStore(B, f32(3), (i,))), last)
    a, b = np.random.default_rng(0).random(64, np.float32), np.zeros(64, np.float32)
    launch(queue, one_thread(loop(body, i, 64), [A, B]), [a, b])
    wanted = np.where(np.arange(64) < 40, np.where(a > 0.5, 1, 2), 3)
    wanted[63] = 9
    np.testing.assert_array_equal(b, wanted)


def test_only_one_value_is_evaluated_where_a_condition_guards_a_load(queue: Queue) -> None:
    """Loads far outside of a buffer would end the process."""
    i, far = Var("i", "int32"), Var("far", "int32")
    outside = BufferLoad(A, (ops.mul(ops.add(far, i), 1 << 26),))
    at_home = ops.compare("eq", ops.add(far, i), 0)
    values = (
        Call("if_then_else", (at_home, outside, f32(7)), "float32"),
        Select(Not(at_home), f32(7), outside),
        Select(Binary("and", at_home, ops.compare("gt", outside, f32(0))), f32(1), f32(2)),
        Select(Binary("or", Not(at_home), ops.compare("gt", outside, f32(0))), f32(1), f32(2)),
    )
    stores = seq(*(BufferStore(B, v, (ops.add(ops.mul(i, 4), k),)) for k, v in enumerate(values)))
    a, b = np.full(64, 5, np.float32), np.zeros(64, np.float32)
    launch(queue, one_thread(loop(stores, i, 2), [A, B, far]), [a, b], [0])
    np.testing.assert_array_equal(b[:8], [5, 5, 1, 1, 7, 7, 2, 1])


def test_a_return_ends_the_thread(queue: Queue) -> None:
    i = Var("i", "int32")
    leave = Evaluate(Call("ret", (i32(0),), "int32"))
    left = IfThenElse(ops.compare("eq", i, 5), seq(leave, BufferStore(B, f32(8), (i,))))
    inside = seq(left, BufferStore(B, f32(1), (i,)))
    body = seq(loop(inside, i, 64), BufferStore(B, f32(9), (i32(63),)))
    b = np.zeros(64, np.float32)
    launch(queue, one_thread(body, [B]), [b])
    np.testing.assert_array_equal(b, [1] * 5 + [0] * 59)


def test_lets_and_attributes_and_promises(queue: Queue) -> None:
    i, x, y = Var("i", "int64"), Var("x", "float32"), Var("y", "int64")
    value = Let(y, ops.add(i, 1), ops.add(Cast(y, "float32"), x))
    promise = Evaluate(Call("assume", (ops.compare("ge", i, 0),), "int32"))
    body = AttrStmt(
        "key", 1, LetStmt(x, ops.mul(BufferLoad(A, (i,)), f32(2)), seq(promise, BufferStore(B, value, (i,))))
    )
    a, b = np.arange(64, dtype=np.float32), np.zeros(64, np.float32)
    launch(queue, one_thread(loop(body, i, 64), [A, B]), [a, b])
    np.testing.assert_array_equal(b, 2 * a + np.arange(1, 65))


def test_loops_are_unrolled_where_a_driver_stops_them_and_refused_where_that_is_not_enough(queue: Queue) -> None:
    i, j, out = Var("i", "int64"), Var("j", "int32"), buffer("out", 4, "int32")
    total = BufferStore(out, ops.add(BufferLoad(out, (i32(0),)), ops.add(Cast(i, "int32"), j)), (i32(0),))
    limited = Target("vulkan loop_iterations=65535 int64=true")
    kernel = one_thread(loop(loop(total, j, 1000, start=5), i, 300), [out])
    array = np.zeros(4, np.int32)
    launch(queue, kernel, [array], target=limited)
    assert array[0] == sum(a + b for a in range(300) for b in range(5, 1005))
    with pytest.raises(
        BuildFailed, match=r"kernel 'kernel' runs [\d,]+ iterations .* stops a thread's loops after 65,535"
    ):
        emit_module([one_thread(loop(loop(total, j, 1000), i, 3000), [out])], limited)
    emit_module([one_thread(loop(loop(total, j, 1000), i, 3000), [out])], FULL)


def test_loops_that_are_to_be_unrolled_do_not_count_as_iterations(queue: Queue) -> None:
    """A tile of results at each step of a long sum: what is left is one loop, of as few copies as will do."""
    i, j, k, out = Var("i", "int64"), Var("j", "int32"), Var("k", "int32"), buffer("out", 8, "int32")
    place = ops.add(ops.mul(j, 2), k)
    total = BufferStore(out, ops.add(BufferLoad(out, (place,)), ops.add(Cast(i, "int32"), place)), (place,))
    body = loop(loop(loop(total, k, 2, kind="unrolled"), j, 4, kind="unrolled"), i, 30_000)
    kernel, array = one_thread(body, [out]), np.zeros(8, np.int32)
    limited = Target("vulkan loop_iterations=65535 int64=true")
    launch(queue, kernel, [array], target=limited)
    np.testing.assert_array_equal(array, sum(range(30_000)) + 30_000 * np.arange(8))
    assert disassembled(generated(kernel, target=limited)).count("OpLoopMerge") == 1
    many = Target("vulkan loop_iterations=10000 int64=true")
    launch(queue, one_thread(body, [out]), [array], target=many)
    np.testing.assert_array_equal(array, 2 * (sum(range(30_000)) + 30_000 * np.arange(8)))


# --- memory


@pytest.mark.parametrize("target", [FULL, Target("vulkan storage8=true storage16=true int64=true fp64=true fp16=true")])
@pytest.mark.parametrize("dtype", dt.SCALARS)
def test_threads_exchange_elements_of_every_dtype(queue: Queue, dtype: str, target: Target) -> None:
    """Through shared memory, and each through an array of its own."""
    t, i = Var("t", "int32"), Var("i", "int32")
    n = 32
    source, out = buffer("source", n, dtype), buffer("out", n, dtype)
    shared, own = buffer("shared", n, dtype, "shared"), buffer("own", 2, dtype, "local")
    body = Allocate(
        own,
        seq(
            BufferStore(shared, BufferLoad(source, (t,)), (t,)),
            barrier(),
            loop(BufferStore(own, BufferLoad(shared, (ops.sub(n - 1, t),)), (i,)), i, 2),
            BufferStore(out, BufferLoad(own, (i32(1),)), (t,)),
        ),
    )
    given = np.resize(edges(dtype), n)
    array = np.zeros(n, given.dtype)
    kernel = one_thread(body, [source, out], group=n, threads={t: "threadIdx.x"}, shared=[shared])
    launch(queue, kernel, [given, array], target=target)
    assert_same_bits(array, given[::-1].copy(), dtype, [given])


def test_a_buffer_larger_than_a_descriptor_reaches_is_bound_in_parts(queue: Queue) -> None:
    """Threads read and write on both sides of where the second part begins."""
    t, each = Var("t", "int32"), PART_BYTES // 4
    large, small = buffer("large", each + 100, "int32"), buffer("small", 64, "int32")
    place = ops.add(each - 32, t)
    body = seq(
        BufferStore(small, BufferLoad(large, (place,)), (t,)),
        BufferStore(large, ops.add(BufferLoad(large, (t,)), BufferLoad(large, (place,))), (place,)),
    )
    kernel = one_thread(body, [large, small], group=64, threads={t: "threadIdx.x"})
    array, copied = np.zeros(each + 100, np.int32), np.zeros(64, np.int32)
    array[:64], array[each - 32 : each + 32] = np.arange(64), np.arange(1000, 1064)
    module = launch(queue, kernel, [array, copied], target=BARE)
    assert module.parts == {"kernel": {"large": 2}}
    np.testing.assert_array_equal(copied, np.arange(1000, 1064))
    np.testing.assert_array_equal(array[each - 32 : each + 32], np.arange(1000, 1128, 2))
    assert not array[64 : each - 32].any()
    assert not array[each + 32 :].any()
    roomy = Target("vulkan storage_buffer_bytes=4294967295")
    assert generated(kernel, target=roomy).parts == {"kernel": {}}


@pytest.mark.parametrize("groups", [1, 5])
def test_a_group_adds_up_in_a_tree(queue: Queue, groups: int) -> None:
    n = 256
    block, t = Var("block", "int64"), Var("t", "int32")
    source, out = buffer("source", n * groups), buffer("out", groups)
    shared = buffer("shared", n, scope="shared")
    at = ops.add(ops.mul(block, n), Cast(t, "int64"))
    steps: list[Stmt] = [BufferStore(shared, BufferLoad(source, (at,)), (t,)), barrier()]
    width = n // 2
    while width:
        pair = ops.add(BufferLoad(shared, (t,)), BufferLoad(shared, (ops.add(t, width),)))
        steps += [IfThenElse(ops.compare("lt", t, width), BufferStore(shared, pair, (t,))), barrier()]
        width //= 2
    steps.append(IfThenElse(ops.compare("eq", t, 0), BufferStore(out, BufferLoad(shared, (i32(0),)), (block,))))
    threads = {block: "blockIdx.x", t: "threadIdx.x"}
    kernel = one_thread(seq(*steps), [source, out], group=n, threads=threads, shared=[shared], groups=groups)
    given, array = np.arange(n * groups, dtype=np.float32), np.zeros(groups, np.float32)
    module = launch(queue, kernel, [given, array], grid=(groups, 1, 1))
    np.testing.assert_array_equal(array, given.reshape(groups, n).sum(1))
    assert module.shared_bytes == {"kernel": 4 * n}


def test_threads_of_a_group_see_global_stores_after_a_barrier(queue: Queue) -> None:
    t = Var("t", "int32")
    out = buffer("out", 64, "int32")
    swapped = BufferLoad(out, (ops.sub(63, t),))
    x = Var("x", "int32")
    body = seq(
        BufferStore(out, t, (t,)),
        barrier(),
        LetStmt(x, swapped, seq(barrier(), BufferStore(out, ops.add(x, 100), (t,)))),
    )
    array = np.zeros(64, np.int32)
    module = launch(queue, one_thread(body, [out], group=64, threads={t: "threadIdx.x"}), [array])
    np.testing.assert_array_equal(array, 163 - np.arange(64))
    assert re.search(r"OpDecorate %out Coherent", disassembled(module))


def test_strides_offsets_and_axes_of_symbolic_size(queue: Queue) -> None:
    n, m, stride = Var("n", "int64"), Var("m", "int32"), Var("stride", "int64")
    rows = Buffer("rows", (n, Cast(m, "int64")), "float32", strides=(stride, IntImm(1, "int64")), elem_offset=i32(3))
    out = Buffer("out", (n, Cast(m, "int64")), "float32")
    i, j = Var("i", "int64"), Var("j", "int64")
    body = BufferStore(out, ops.add(BufferLoad(rows, (i, j)), f32(1)), (i, j))
    nest = loop(loop(body, j, Cast(m, "int64")), i, n)
    given, array = np.arange(3 + 5 * 11, dtype=np.float32), np.zeros((5, 7), np.float32)
    launch(queue, one_thread(nest, [rows, out, n, m, stride]), [given, array], [5, 7, 11])
    np.testing.assert_array_equal(array, given[3:].reshape(5, 11)[:, :7] + 1)


@pytest.mark.parametrize("dtype", dt.SCALARS)
def test_scalars_of_every_dtype_arrive(queue: Queue, dtype: str) -> None:
    before, scalar, after = Var("before", "int8"), Var("scalar", dtype), Var("after", "uint64")
    out, ends = buffer("out", 1, dtype), buffer("ends", 2, "int64")
    body = seq(
        BufferStore(out, scalar, (i32(0),)),
        BufferStore(ends, Cast(before, "int64"), (i32(0),)),
        BufferStore(ends, Cast(after, "int64"), (i32(1),)),
    )
    kernel = one_thread(body, [out, ends, before, scalar, after])
    values = [v for v in edges(dtype).tolist() if dtype != "float16" or v != v or abs(v) >= 2**-14 or v == 0]
    for value in values[-9:]:
        array, others = np.zeros(1, dt.to_numpy(dtype)), np.zeros(2, np.int64)
        launch(queue, kernel, [array, others], [-7, value, 2**63 + 5])
        with np.errstate(all="ignore"):
            assert_same_bits(array, np.array([value]).astype(array.dtype), dtype, [array])
        np.testing.assert_array_equal(others, [-7, 5 - 2**63])


def test_push_constants_lie_at_multiples_of_their_size() -> None:
    assert push_constant_layout([]) == ((), 0)
    assert push_constant_layout(["int8", "int64", "bool", "float16", "float64"]) == ((0, 8, 16, 20, 24), 32)
    packed = pack_push_constants(["int8", "uint64", "float16", "bfloat16"], [0xFE, 2**64 - 1, 0x3C00, 0x3F80])
    assert packed == b"\xfe\xff\xff\xff" + b"\0" * 4 + b"\xff" * 8 + b"\x00\x3c\0\0" + b"\x80\x3f\0\0" + b"\0" * 4
    assert pack_push_constants(["bool"], [1], 65535) == b"\1\0\0\0\xff\xff\0\0"


def test_kernels_along_three_axes(queue: Queue) -> None:
    names = ("blockIdx.x", "blockIdx.y", "blockIdx.z", "threadIdx.x", "threadIdx.y", "threadIdx.z")
    grid, group = (2, 3, 4), (4, 2, 3)
    indices = {Var(tag.replace(".", "_").lower(), "int32" if k % 2 else "int64"): tag for k, tag in enumerate(names)}
    count = int(np.prod(grid + group))
    out = buffer("out", count, "int32")
    place: Expr = IntImm(0, "int64")
    for var, extent in zip(indices, grid + group):
        place = ops.add(ops.mul(place, extent), Cast(var, "int64"))
    kernel = Kernel(
        "kernel", (out,), frozenset([out]), indices, tuple(i32(g) for g in grid), group, (),
        BufferStore(out, Cast(place, "int32"), (place,)),
    )  # fmt: skip
    array = np.zeros(count, np.int32)
    launch(queue, kernel, [array], grid=grid)
    np.testing.assert_array_equal(array, np.arange(count))


# --- modules


def _scaled(name: str) -> Kernel:
    i = Var("i", "int32")
    value = Call("exp", (BufferLoad(A, (i,)),), "float32")
    return one_thread(loop(BufferStore(B, value, (i,)), i, 64), [A, B], name=name)


def test_kernels_of_one_module_share_types_and_functions() -> None:
    text = disassembled(generated(_scaled("first"), _scaled("second")))
    assert text.count("OpEntryPoint GLCompute") == 2
    assert len(re.findall(r"OpName %\S+ \"crossfarm.exp\"", text)) == 1
    assert len(re.findall(r"OpTypeFloat 32", text)) == 1


def test_the_text_is_what_spirv_dis_prints() -> None:
    results = {name: lambda a, name=name: Call(name, (a,), "float32") for name in FUNCTIONS if name in _UNARY}
    small = element_kernel(("int8", "float16"), {"y": lambda a, b: ops.add(Cast(a, "float16"), b)}, name="small").kernel
    module = generated(_scaled("f"), small, element_kernel(("float32",), results, name="all").kernel)
    wanted = disassembled(module, "--raw-id", "--no-indent").splitlines()
    got = assembly(module.code, names=False).splitlines()
    assert len(got) == len(wanted)
    # constants of floats may have other digits for the same number
    types = [line.split()[0] for line in wanted if "OpTypeFloat" in line]
    floats = {k for k, line in enumerate(wanted) if any(f"OpConstant {t} " in line for t in types)}
    assert [x for k, x in enumerate(got) if k not in floats] == [x for k, x in enumerate(wanted) if k not in floats]
    plain = [k for k in floats if "0x" not in wanted[k]]
    assert len(plain) > 20
    assert all(np.float32(got[k].split()[-1]) == np.float32(wanted[k].split()[-1]) for k in plain)
    assert "%A = OpVariable" in assembly(module.code)


def test_the_same_kernels_give_the_same_bytes() -> None:
    assert emit_module([_scaled("f")], FULL) == emit_module([_scaled("f")], FULL)


def test_buffers_are_said_to_overlap_unless_they_do_not() -> None:
    kernel = _scaled("f")
    assert "OpDecorate %A Aliased" in disassembled(generated(kernel))
    text = disassembled(generated(replace(kernel, noalias=True)))
    assert "Aliased" not in text
    assert "OpDecorate %A Restrict" in text
    assert "OpDecorate %A NonWritable" in text
    assert "OpDecorate %B NonWritable" not in text


def test_features_are_those_that_the_code_needs() -> None:
    i = Var("i", "int64")
    indexed = loop(BufferStore(B, BufferLoad(A, (ops.floordiv(ops.mul(i, 3), 4),)), (ops.floormod(i, 64),)), i, 64)
    assert generated(one_thread(indexed, [A, B]), target=BARE).features == ()
    kernel = element_kernel(("int8",), {"y": lambda a: Cast(a, "float64")}).kernel
    assert generated(kernel).features == ("float64", "float_controls", "storage8")
    halves = element_kernel(("float16",), {"y": lambda a: Cast(a, "int64")}).kernel
    assert generated(halves).features == ("float16", "float_controls", "int64", "storage16")


def test_products_that_are_added_are_fused_and_nothing_else_is() -> None:
    kernel = element_kernel(("float32", "float32"), {"y": lambda a, b: ops.add(ops.mul(a, b), a)}).kernel
    assert "Fma" in disassembled(generated(kernel))
    sums = element_kernel(("float32", "float32"), {"y": lambda a, b: ops.add(ops.add(a, b), a)}).kernel
    text = disassembled(generated(sums))
    assert text.count("OpFAdd") == text.count("NoContraction") == 2


# --- refusals


@pytest.mark.parametrize(
    ("dtype", "lacks"),
    [
        ("float64", "float64"), ("float16", "storage16"), ("bfloat16", "storage16"), ("int64", "int64"),
        ("int8", "storage8"), ("bool", "storage8"), ("uint16", "storage16"),
    ],
)  # fmt: skip
def test_what_the_device_lacks_is_refused_by_name(dtype: str, lacks: str) -> None:
    kernel = element_kernel((dtype,), {"y": lambda a: a}, name="copy").kernel
    with pytest.raises(BuildFailed, match=rf"kernel 'copy' uses .*{dtype}, and target vulkan lacks {lacks} ") as caught:
        emit_module([kernel], BARE)
    assert "say so in the target" in caught.value.hint


def test_functions_of_float64_are_refused() -> None:
    kernel = element_kernel(("float64",), {"y": lambda a: Call("sin", (a,), "float64")}, name="wave").kernel
    with pytest.raises(BuildFailed, match="kernel 'wave': there is no sin on float64") as caught:
        emit_module([kernel], FULL)
    assert "float32" in caught.value.hint


def _refused(body: Stmt, **given: Any) -> str:
    with pytest.raises(BuildFailed) as caught:
        emit_module([one_thread(body, [A, B], **given)], FULL)
    assert caught.value.hint
    return str(caught.value)


def test_what_cannot_be_said_in_spirv_is_refused() -> None:
    zero = (i32(0),)
    unknown = Var("unknown", "float32")
    address = Call("address_of", (BufferLoad(A, zero),), "handle")
    copy = Call("call_extern", (StringImm("memcpy"), address, address, i32(4)), "handle")
    assert "'memcpy' cannot be called" in _refused(Evaluate(copy))
    assert "variable 'unknown' is used where it is not defined" in _refused(BufferStore(A, unknown, zero))
    assert "an assertion reached" in _refused(AssertStmt(ops.compare("lt", 1, 2), "sizes agree"))
    inner = loop(BufferStore(A, f32(0), zero), Var("t", "int32"), 4, kind="thread_binding")
    assert "bound to" in _refused(replace(inner, thread="threadIdx.x"))
    assert "buffer 'elsewhere' is used where it does not exist" in _refused(
        BufferStore(A, BufferLoad(buffer("elsewhere", 1), zero), zero)
    )
    large = buffer("large", 10_000, scope="shared")
    message = _refused(BufferStore(large, f32(0), zero), shared=[large])
    assert "shares 40000 bytes within a group" in message
    assert "room for 32768" in message


def test_more_scalars_than_the_device_takes_are_refused() -> None:
    scalars = [Var(f"s{k}", "float32") for k in range(32)]
    kernel = one_thread(BufferStore(A, scalars[31], (i32(0),)), [A, *scalars])
    with pytest.raises(BuildFailed, match=r"has 128 bytes of scalar arguments, and target .* has room for 124"):
        emit_module([kernel], FULL)
    generated(kernel, target=Target("vulkan push_constant_bytes=256"))


def test_the_documented_errors_are_those_stated_in_the_code() -> None:
    rows = re.findall(r"^\| `(\w+)` \| ([\d.]+) \| \d \|$", (ROOT / "docs" / "math.md").read_text(), re.MULTILINE)
    assert {name: float(bound) for name, bound in rows} == {name: f.ulp for name, f in FUNCTIONS.items()}
