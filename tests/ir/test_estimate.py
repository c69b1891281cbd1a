"""Static counts: operations, bytes and instructions of functions, and the share of a core's peak that they allow."""

from __future__ import annotations

import math

import pytest

import crossfarm as cf
from crossfarm.errors import ArgumentError
from crossfarm.ir.arith import fold_int
from crossfarm.ir.buffer import Buffer
from crossfarm.ir.calls import dimension_symbols
from crossfarm.ir.estimate import Core, Estimate, estimate, symbolic_sizes, work
from crossfarm.ir.expr import Binary, Expr, IntImm, Var
from crossfarm.ir.function import PrimFunc

CORE = Core(vector_bytes=32)


def function(parameters: str, *body: str) -> PrimFunc:
    lines = "\n".join(f"        {line}" for line in body)
    return cf.parse(
        "from crossfarm.script import ir as I, tir as T\n@I.ir_module\nclass Module:\n    @T.prim_func\n"
        f"    def main({parameters}):\n{lines}\n"
    )["main"]


def counted(parameters: str, *body: str, **sizes: int) -> Estimate:
    return estimate(function(parameters, *body), CORE, sizes)


MATMUL = (
    'A: T.Buffer((4, 8), "float32"), B: T.Buffer((8, 16), "float32"), C: T.Buffer((4, 16), "float32")',
    "for i, j, k in T.grid(4, 16, 8):",
    '    with T.block("C"):',
    '        vi, vj, vk = T.axis.remap("SSR", [i, j, k])',
    "        with T.init():",
    "            C[vi, vj] = T.float32(0)",
    "        C[vi, vj] = C[vi, vj] + A[vi, vk] * B[vk, vj]",
)


def test_a_product_of_matrices_has_two_operations_for_each_of_its_triples() -> None:
    found = counted(*MATMUL)
    assert found.operations == 2 * 4 * 16 * 8


def test_parameters_move_once_however_often_they_are_used() -> None:
    found = counted(*MATMUL)
    assert found.written == 4 * 4 * 16
    assert found.read == 4 * (4 * 8 + 8 * 16 + 4 * 16)  # the sums so far are read too
    assert found.intensity == pytest.approx(found.operations / found.bytes)


def test_a_product_that_is_added_is_one_instruction() -> None:
    assert counted(*MATMUL).arithmetic == 4 * 16 * 8


def test_an_initial_value_is_stored_once_for_each_result() -> None:
    assert counted(*MATMUL).stores == 4 * 16 * 8 + 4 * 16


def test_elements_that_are_never_touched_do_not_move() -> None:
    found = counted(
        'A: T.Buffer((1000,), "float32"), B: T.Buffer((10,), "float32")', "for i in range(10):", "    B[i] = A[i * 7]"
    )
    assert (found.read, found.written) == (40, 40)


def test_arithmetic_on_indices_is_not_counted() -> None:
    found = counted(
        'A: T.Buffer((64,), "float32"), B: T.Buffer((8,), "float32")',
        "for i in range(8):",
        "    B[i] = A[i * 4 + i // 2] + T.float32(1)",
    )
    assert found.operations == 8


def test_a_vector_counts_an_operation_a_lane_and_an_instruction_a_register() -> None:
    found = counted(
        'A: T.Buffer((64,), "float32"), B: T.Buffer((64,), "float32")',
        "for i in range(4):",
        "    B[i * 16 : i * 16 + 16] = A[i * 16 : i * 16 + 16] + T.Broadcast(T.float32(1), 16)",
    )
    assert (found.operations, found.arithmetic, found.loads, found.stores) == (64, 8, 8, 8)


def test_lanes_that_lie_apart_are_loaded_one_by_one() -> None:
    found = counted('A: T.Buffer((64,), "float32"), B: T.Buffer((8,), "float32")', "B[0:8] = A[T.Ramp(0, 8, 8)]")
    assert (found.loads, found.stores) == (8, 1)


def test_a_small_temporary_at_known_places_is_no_memory() -> None:
    parameters = 'A: T.Buffer((64,), "float32"), B: T.Buffer((1,), "float32")'
    known = ('acc = T.decl_buffer((2,), "float32")', "acc[0] = A[0]", "acc[1] = A[1]", "B[0] = acc[0] + acc[1]")
    assert counted(parameters, *known).loads == 2
    unknown = (
        'acc = T.decl_buffer((64,), "float32")',
        "for i in range(64):",
        "    acc[i] = A[i]",
        "B[0] = acc[0] + acc[1]",
    )
    assert counted(parameters, *unknown).loads == 66


def test_an_element_that_was_just_loaded_is_not_loaded_again() -> None:
    parameters = 'A: T.Buffer((8,), "float32"), B: T.Buffer((8,), "float32"), C: T.Buffer((8,), "float32")'
    twice = ("for i in range(8):", "    B[i] = A[i] + A[i]", "    C[i] = A[i] * B[i]")
    assert counted(parameters, *twice).loads == 8
    changed = ("for i in range(8):", "    B[i] = A[i]", "    A[0] = B[i]", "    C[i] = A[i]")
    assert counted(parameters, *changed).loads == 16


def test_a_function_costs_more_than_an_addition() -> None:
    parameters = 'A: T.Buffer((8,), "float32"), B: T.Buffer((8,), "float32")'
    plain = counted(parameters, "for i in range(8):", "    B[i] = A[i] + T.float32(1)")
    costly = counted(parameters, "for i in range(8):", "    B[i] = T.exp(A[i])")
    assert costly.operations == plain.operations
    assert costly.arithmetic > plain.arithmetic


def test_a_triangle_counts_about_half_of_its_square() -> None:
    found = counted(
        'A: T.Buffer((100, 100), "float32")',
        "for i in range(100):",
        "    for j in range(i):",
        "        A[i, j] = A[i, j] + T.float32(1)",
    )
    assert found.operations == pytest.approx(100 * 100 / 2, rel=0.05)


SYMBOLIC = (
    "a: T.handle, b: T.handle",
    "n = T.int64()",
    'A = T.match_buffer(a, (n,), "float32")',
    'B = T.match_buffer(b, (n,), "float32")',
    "for i in range(n):",
    "    B[i] = A[i] * T.float32(2)",
)


def test_symbolic_sizes_are_given_by_name() -> None:
    assert symbolic_sizes(function(*SYMBOLIC)) == ("n",)
    assert counted(*SYMBOLIC, n=12).operations == 12


def test_a_size_that_is_missing_is_named() -> None:
    with pytest.raises(ArgumentError, match="'n'") as refused:
        counted(*SYMBOLIC)
    assert "--size n=" in refused.value.hint


def test_the_peak_is_fused_multiply_adds_in_every_unit() -> None:
    assert CORE.peak() == 2 * 2 * 8
    assert CORE.peak("float64") == 2 * 2 * 4


def test_what_takes_longest_decides_the_share_of_the_peak() -> None:
    dense = Estimate(32_000, 128_000, 0, 0, arithmetic=2_000, loads=500, stores=0)
    assert dense.share_of_peak(CORE) == pytest.approx(1)
    starved = Estimate(32_000, 128_000, 0, 0, arithmetic=2_000, loads=4_000, stores=0)
    assert starved.share_of_peak(CORE) == pytest.approx(0.5)
    far = Estimate(32_000, 128_000, read=80_000, written=0, arithmetic=2_000, loads=0, stores=0)
    assert far.share_of_peak(CORE) == pytest.approx(0.1)
    assert max(far.cycles(CORE), key=far.cycles(CORE).__getitem__) == "memory"


def test_a_function_that_moves_nothing_has_no_bound_on_its_intensity() -> None:
    assert Estimate(8, 32, 0, 0, 1, 0, 0).intensity == math.inf
    assert Estimate(0, 0, 0, 0, 0, 0, 0).share_of_peak(CORE) == 0


# --- counts in symbols


def value(expr: Expr, sizes: dict[str, int]) -> int:
    match expr:
        case IntImm():
            return expr.value
        case Var():
            return sizes[expr.name]
        case Binary():
            found = fold_int(expr.op, value(expr.a, sizes), value(expr.b, sizes), "int64")
            assert found is not None
            return found
    raise AssertionError(f"{expr} is nothing that an artifact says")


IN_SYMBOLS = {
    "product": (
        "a: T.handle, b: T.handle, c: T.handle",
        "n, m, k = T.int64(), T.int64(), T.int64()",
        'A = T.match_buffer(a, (n, k), "float32")',
        'B = T.match_buffer(b, (k, m), "float32")',
        'C = T.match_buffer(c, (n, m), "float32")',
        "for i, j, l in T.grid(n, m, k):",
        '    with T.block("C"):',
        '        vi, vj, vl = T.axis.remap("SSR", [i, j, l])',
        "        with T.init():",
        "            C[vi, vj] = T.float32(1) + T.float32(1)",
        "        C[vi, vj] = C[vi, vj] + A[vi, vl] * B[vl, vj]",
    ),
    "windows": (
        "a: T.handle, b: T.handle",
        "n = T.int64()",
        'A = T.match_buffer(a, (n,), "float32")',
        'B = T.match_buffer(b, ((n - 3) // 2 + 1,), "float32")',
        "for i, j in T.grid((n - 3) // 2 + 1, 3):",
        "    B[i] = T.max(B[i], A[i * 2 + j])",
    ),
    "triangle": (
        "a: T.handle",
        "n, m = T.int64(), T.int64()",
        'A = T.match_buffer(a, (n, m), "float32")',
        "for i in range(n):",
        "    for j in range(T.min(i, m)):",
        "        A[i, j] = A[i, j] * T.float32(2)",
    ),
    "as many as asked for": (
        "a: T.handle, times: T.int64",
        "n = T.int64()",
        'A = T.match_buffer(a, (n,), "float32")',
        "for i in range(times):",
        "    A[i % n] = A[i % n] + T.float32(1)",
    ),
}


@pytest.mark.parametrize("name", IN_SYMBOLS)
def test_counts_in_symbols_are_the_counts_at_any_sizes(name: str) -> None:
    func = function(*IN_SYMBOLS[name])
    symbols = {v: v for v in (*dimension_symbols(func), *(p for p in func.params if isinstance(p, Var)))}
    found = work(func, symbols, dimension_symbols(func))
    for sizes in ({"n": 7, "m": 5, "k": 3, "times": 4}, {"n": 64, "m": 1, "k": 100, "times": 100}):
        wanted = estimate(func, CORE, sizes)
        assert value(found.operations, sizes) == wanted.operations
        moved = [sum(value(e, sizes) for e in each.values()) for each in (found.read, found.written)]
        assert moved == [wanted.read, wanted.written]


def test_counts_of_a_product_in_symbols_are_as_short_as_by_hand() -> None:
    func = function(*IN_SYMBOLS["product"])
    n, m, k = dimension_symbols(func)[0], dimension_symbols(func)[2], dimension_symbols(func)[1]
    found = work(func, {n: n, m: IntImm(16, "int64"), k: IntImm(8, "int64")}, [n])
    c = next(p for p in func.params if isinstance(p, Buffer) and p.name == "C")
    assert isinstance(found.operations, Binary)
    assert (found.operations.a, found.operations.b) == (n, found.operations.b)
    assert value(found.operations.b, {}) == 16 * (2 * 8 + 1)
    assert value(found.written[c], {"n": 3}) == 3 * 16 * 4


def test_counts_that_depend_on_data_are_not_told() -> None:
    func = function(
        'A: T.Buffer((8,), "float32"), lengths: T.Buffer((8,), "int32"), n: T.int64',
        "for i in range(T.Select(n < 4, 4, 8)):",
        "    A[i] = T.float32(0)",
    )
    n = func.params[2]
    assert isinstance(n, Var)
    with pytest.raises(ArgumentError, match="depends on lt of symbolic sizes"):
        work(func, {n: n})


@pytest.mark.parametrize("step", ["v * v", "v // 2 + v // 3", "T.min(v, 5) * (v + 1)"])
def test_counts_that_are_formulas_without_end_are_not_told(step: str) -> None:
    lets = [f"v{i + 1}: T.let[T.int64] = {step.replace('v', f'v{i}')}" for i in range(60)]
    sizes = ("n = T.int64()", 'A = T.match_buffer(a, (n,), "float32")', "v0: T.let[T.int64] = n + 1")
    func = function("a: T.handle", *sizes, *lets, "for i in range(v60):", "    A[0] = T.float32(0)")
    n = dimension_symbols(func)[0]
    with pytest.raises(ArgumentError, match="too long a formula"):
        work(func, {n: n}, [n])
