"""What different releases of TVM write differently means the same module."""

from __future__ import annotations

import textwrap

import pytest

from crossfarm.errors import ScriptError
from crossfarm.frontends.tvmscript import parse
from crossfarm.ir.buffer import Buffer
from crossfarm.ir.expr import Var
from crossfarm.ir.stmt import Allocate, BlockRealize, For
from crossfarm.ir.verify import verify
from crossfarm.ir.visitor import walk
from tests.frontends.helpers import program, round_trips, same

CANONICAL = """
from tvm.script import ir as I, tir as T

@I.ir_module
class Module:
    @T.prim_func
    def main(A: T.Buffer((16, 8), "float32"), B: T.Buffer((16, 8), "float32")):
        T.func_attr({"tir.noalias": True})
        X = T.alloc_buffer((16, 8), "float32", scope="local")
        for i, j in T.grid(16, 8):
            with T.block("X"):
                vi, vj = T.axis.remap("SS", [i, j])
                T.reads(A[vi, vj])
                T.writes(X[vi, vj])
                T.block_attr({"key": 1})
                X[vi, vj] = A[vi, vj] * T.float32(2)
        for i, j in T.grid(16, 8):
            with T.block("B"):
                vi, vj = T.axis.remap("SS", [i, j])
                T.reads(X[vi, vj])
                T.writes(B[vi, vj])
                B[vi, vj] = X[vi, vj]
"""

VARIANTS = {
    "tirx": [("tir as T", "tirx as T"), ("T.block", "T.sblock"), ("T.alloc_buffer", "T.sblock_alloc_buffer"),
             ("tir.noalias", "tirx.noalias"), ("@T.prim_func", "@T.prim_func(s_tir=True)")],
    "imports as comments": [("from tvm.script import ir as I, tir as T", "# from tvm.script import tir as T")],
    "no imports": [("from tvm.script import ir as I, tir as T", "")],
    "other aliases": [("ir as I, tir as T", "ir as J, tir as S"), ("T.", "S."), ("@I.", "@J.")],
    "other aliases in comments": [("from tvm.script import ir as I, tir as T", "# from tvm.script import tir as S"),
                                  ("T.", "S.")],
    "whole modules": [("from tvm.script import ir as I, tir as T", "import tvm\nfrom tvm import script"),
                      ("@I.ir_module", "@tvm.script.ir_module"), ("T.", "script.tir.")],
    "module names": [("ir as I, tir as T", "ir, tir"), ("T.", "tir."), ("@I.", "@ir.")],
    "crossfarm's own": [("tvm.script", "crossfarm.script")],
    "typed booleans": [("True}", "T.bool(True)}")],
    "default dtype": [('(16, 8), "float32")', "(16, 8))"), ('(16, 8), "float32",', "(16, 8),")],
    "lists for tuples": [("((16, 8)", "([16, 8]")],
    "subscripted buffers": [('T.Buffer((16, 8), "float32")', 'T.Buffer[(16, 8), "float32"]')],
    "short axes": [('vi, vj = T.axis.remap("SS", [i, j])',
                    "vi = T.axis.S(16, i)\n                vj = T.axis.S(8, j)")],
    "domains from zero": [('vi, vj = T.axis.remap("SS", [i, j])',
                           "vi = T.axis.spatial((0, 16), i)\n                vj = T.axis.spatial(8, j)")],
    "regions as lists": [("T.reads(A[vi, vj])", "T.reads([A[vi, vj]])")],
    "unit ranges": [("T.reads(A[vi, vj])", "T.reads(A[vi:vi + 1, vj])")],
    "inferred regions": [("                T.reads(A[vi, vj])\n", ""), ("                T.writes(B[vi, vj])\n", "")],
    "python floats": [("T.float32(2)", "2.0")],
    "python ints": [("T.float32(2)", "2")],
    "global symbol": [('{"tir.noalias": True}', '{"global_symbol": "main", "tir.noalias": True}')],
    "old buffer arguments": [('(16, 8), "float32", scope="local")',
                              '[16, 8], dtype="float32", elem_offset=0, scope="local", align=64, offset_factor=0)')],
    "docstring": [("        T.func_attr", '        """Doubles."""\n        T.func_attr')],
}  # fmt: skip


@pytest.mark.parametrize("name", VARIANTS)
def test_another_spelling_is_the_same_module(name: str) -> None:
    text = CANONICAL
    for old, new in VARIANTS[name]:
        assert old in text
        text = text.replace(old, new)
    same(parse(CANONICAL), parse(text))


def test_a_bare_function_is_a_module_of_one() -> None:
    module = parse('@T.prim_func\ndef f(A: T.Buffer((4,), "int8")):\n    A[0] = 1')
    assert list(module.functions) == ["f"]


def test_a_written_out_root_block_is_the_root() -> None:
    head = '@T.prim_func\ndef main(A: T.Buffer((4,), "int32")):\n'
    body = (
        'X = T.alloc_buffer((4,), "int32")\nfor i in range(4):\n    with T.block("b"):\n'
        "        v = T.axis.spatial(4, i)\n        X[v] = A[v]\n"
    )
    flat = head + textwrap.indent(body, " " * 4)
    nested = head + '    with T.block("root"):\n' + textwrap.indent(body, " " * 8)
    same(parse(flat), parse(nested))


SIZES = [
    "var_A: T.handle, var_B: T.handle):\n    n = T.int32()\n    A = T.match_buffer(var_A, (n,))\n"
    "    B = T.match_buffer(var_B, (n + 1,))\n",
    'A: T.Buffer(("n",), "float32"), B: T.Buffer((n + 1,), "float32")):\n    n = T.int32()\n',
    'A: T.Buffer(("n",), "float32"), B: T.Buffer(("n + 1",), "float32")):\n    n = T.int32()\n',
    'A: T.Buffer((n,), "float32"), B: T.Buffer(("n + 1",), "float32")):\n    n, = T.int32(),\n',
    "var_A: T.handle, B: T.Buffer(('n + 1',))):\n    n = T.var('int32')\n    A = T.match_buffer(var_A, ('n',))\n",
]


@pytest.mark.parametrize("head", SIZES)
def test_symbolic_sizes_are_written_in_many_ways(head: str) -> None:
    body = "    for i in range(n):\n        A[i] = B[i + 1]\n"
    reference = parse(f"@T.prim_func\ndef main({SIZES[0]}{body}")
    same(reference, parse(f"@T.prim_func\ndef main({head}{body}"))


def test_a_size_declared_outside_or_only_quoted_is_int64() -> None:
    declared = parse('n = TypeVar("n")\n@T.prim_func\ndef f(A: T.Buffer((n, 4), "int8")):\n    A[0, 0] = 1')
    quoted = parse('@T.prim_func\ndef f(A: T.Buffer(("n", 4), "int8")):\n    A[0, 0] = 1')
    same(declared, quoted)
    buffer = declared["f"].params[0]
    assert isinstance(buffer, Buffer)
    assert isinstance(buffer.shape[0], Var)
    assert buffer.shape[0].dtype == "int64"


def test_two_functions_do_not_share_a_size_declared_outside() -> None:
    module = parse(
        'n = TypeVar("n")\n@I.ir_module\nclass M:\n'
        + "".join(f'    @T.prim_func\n    def {f}(A: T.Buffer((n,), "int8")):\n        A[0] = 1\n' for f in "fg")
    )
    (a,), (b,) = module["f"].params, module["g"].params
    assert isinstance(a, Buffer)
    assert isinstance(b, Buffer)
    assert a.shape[0] is not b.shape[0]


def test_a_buffer_may_be_sized_by_a_scalar_parameter_after_it() -> None:
    func = parse('@T.prim_func\ndef f(A: T.Buffer((n,), "int8"), n: T.int32):\n    A[0] = 1')["f"]
    buffer, scalar = func.params
    assert isinstance(buffer, Buffer)
    assert buffer.shape[0] is scalar


LETS = [
    "v: T.int32 = i + 1\nB[i, j] = v",
    "v: T.let[T.int32] = i + 1\nB[i, j] = v",
    "v: T.let = i + 1\nB[i, j] = v",
    "v = i + 1\nB[i, j] = v",
    "with T.LetStmt(i + 1) as v:\n    B[i, j] = v",
    "with T.LetStmt(i + 1, var=v):\n    B[i, j] = v",
    "v = T.int32()\nwith T.LetStmt(i + 1, var=v):\n    B[i, j] = v",
    "with T.let(v, i + 1):\n    B[i, j] = v",
]


@pytest.mark.parametrize("text", LETS)
def test_naming_a_value_is_written_in_many_ways(text: str) -> None:
    same(parse(program(LETS[0])), parse(program(text)))


EXPRESSIONS = [
    ("A[i, j] += x", "A[i, j] = A[i, j] + x"),
    ("B[i, j] <<= 1", "B[i, j] = B[i, j] << 1"),
    ("B[i, j] //= n", "B[i, j] = T.floordiv(B[i, j], n)"),
    ("B[i, j] = i // n % j", "B[i, j] = T.floormod(T.FloorDiv(i, n), j)"),
    ("B[i, j] = T.truncdiv(i, n)", "B[i, j] = T.Div(i, n)"),
    ("B[i, j] = T.Mod(i, n)", "B[i, j] = T.truncmod(i, n)"),
    ("A[i, j] = T.Div(x, x)", "A[i, j] = x / x"),
    ("B[i, j] = T.indexmod(i, n)", "B[i, j] = i % n"),
    ("B[i, j] = T.shift_left(i, n)", "B[i, j] = i << n"),
    ("B[i, j] = T.bitwise_xor(i, n)", "B[i, j] = i ^ n"),
    ("B[i, j] = i ^ j & n | 1 << i", "B[i, j] = (i ^ (j & n)) | (1 << i)"),
    ("B[i, j] = ~i", "B[i, j] = T.bitwise_not(i)"),
    ("B[i, j] = -i", "B[i, j] = i * -1"),
    ("A[i, j] = -T.float32(3)", "A[i, j] = T.float32(-3)"),
    ("B[i, j] = 2 * 3 + (7 // 2) % 2 - (1 << 3)", "B[i, j] = -1"),
    ("B[i, j] = T.ceildiv(i, n)", "B[i, j] = (i + n - 1) // n"),
    ("E[i] = 0 <= i < n", "E[i] = 0 <= i and i < n"),
    ("E[i] = ~p", "E[i] = not p"),
    ("E[i] = T.And(p, T.Not(p))", "E[i] = p and not p"),
    ("E[i] = T.LT(i, n) == T.NE(i, 3)", "E[i] = (i < n) == (i != 3)"),
    ("A[i, j] = T.fabs(x)", "A[i, j] = T.abs(x)"),
    ("A[i, j] = T.power(x, 2)", "A[i, j] = T.pow(x, T.float32(2))"),
    ("A[i, j] = T.exp(1)", "A[i, j] = T.exp(T.float32(1))"),
    ("B[i, j] = T.floor(i)", "B[i, j] = i"),
    ("A[i, j] = T.max_value('float32')", "A[i, j] = T.float32(3.4028234663852886e38)"),
    ("B[i, j] = T.min_value('int32')", "B[i, j] = -2147483648"),
    ("A[i, j] = T.infinity('float32')", "A[i, j] = T.float32('inf')"),
    ("A[i, j] = T.reinterpret(i, 'float32')", "A[i, j] = T.reinterpret('float32', i)"),
    ("A[i, j] = T.reinterpret(i, dtype='float32')", "A[i, j] = T.reinterpret('float32', i)"),
    ("A[i, j] = T.call_extern('powf', x, x, dtype='float32')", "A[i, j] = T.call_extern('float32', 'powf', x, x)"),
    ("A[i, j] = T.cast(i, 'float32')", "A[i, j] = T.Cast('float32', i)"),
    ("A[i, j] = T.float32(i)", "A[i, j] = T.Cast('float32', i)"),
    ("A[i, j] = (i + 1).astype('float32')", "A[i, j] = T.Cast('float32', i + 1)"),
    ("A[i, j] = i.astype('float32')", "A[i, j] = T.Cast('float32', i)"),
    ("A[i, j] = T.let(v, x * x, v + v)", "A[i, j] = T.Let(v + v, where={v: x * x})"),
    ("A[i, 0:4] = T.Broadcast(x, 4)", "A[i, T.Ramp(0, 1, 4)] = T.Broadcast(x, 4)"),
    ("A[i, j * 4:j * 4 + 4] = T.Broadcast(x, 4)", "A[i, T.Ramp(j * 4, 1, 4)] = T.Broadcast(x, 4)"),
    ("A[i, j:j + 8:2] = T.Broadcast(x, 4)", "A[i, T.Ramp(j, 2, 4)] = T.Broadcast(x, 4)"),
    ("T.call_extern('void', 'memcpy', A.data, A.data, 4)",
     "T.call_extern('int32', 'memcpy', T.address_of(A[0, 0]), T.address_of(A), 4)"),
    ("B[i, j] = A.shape[0]", "B[i, j] = 16"),
    ("A[i, j] = T.if_then_else(p, x, x, dtype='float32')", "A[i, j] = T.if_then_else(p, x, x)"),
    ("A[i, j] = T.exp(x, dtype='float32')", "A[i, j] = T.exp(x)"),
    ("B[i, j] = T.shift_right(i, j, dtype='int32')", "B[i, j] = i >> j"),
    ("with T.Assert(i < n, 'm'):\n    B[i, j] = 1", "assert i < n, 'm'\nB[i, j] = 1"),
    ("for k in range(0, 8, 2):\n    B[i, k] = 1", "for q in range(4):\n    k: T.int32 = q * 2\n    B[i, k] = 1"),
    ("for k in T.serial(0, 8):\n    B[i, k] = 1", "for k in range(8):\n    B[i, k] = 1"),
    ("T.attr({'a': 1, 'b': 2})\nB[i, j] = 1", "T.attr('', 'a', 1)\nT.attr('', 'b', 2)\nB[i, j] = 1"),
]  # fmt: skip


@pytest.mark.parametrize(("text", "meaning"), EXPRESSIONS)
def test_another_way_to_write_an_expression_means_the_same(text: str, meaning: str) -> None:
    same(parse(program(meaning)), parse(program(text)))
    round_trips(parse(program(text)))


UNIFIED = [
    ("D[i] = D[i] + 1", "D[i] = D[i] + T.float64(1)"),
    ("C[i] = C[i] + 1", "C[i] = C[i] + T.int64(1)"),
    ("C[i] = C[i] + i", "C[i] = C[i] + T.Cast('int64', i)"),
    ("A[i, j] = x * i", "A[i, j] = x * T.Cast('float32', i)"),
    ("D[i] = D[i] * x", "D[i] = D[i] * T.Cast('float64', x)"),
    ("A[i, j] = H[i] * x", "A[i, j] = T.Cast('float32', H[i]) * x"),
    ("A[i, j] = H[i]", "A[i, j] = T.Cast('float32', H[i])"),
    ("I8[i] = I8[i] + 1", "I8[i] = I8[i] + T.int8(1)"),
    ("B[i, j] = I8[i] + i", "B[i, j] = T.Cast('int32', I8[i]) + i"),
    ("I8[i] = U[i] + I8[i]", "I8[i] = T.Cast('int8', U[i]) + I8[i]"),
    ("C[i] = m + T.int32(3)", "C[i] = m + T.int64(3)"),
    ("E[i] = i < m", "E[i] = T.Cast('int64', i) < m"),
    ("A[i, j] = T.if_then_else(p, x, 0)", "A[i, j] = T.if_then_else(p, x, T.float32(0))"),
    ("B[i, j] = i + p", "B[i, j] = i + T.Cast('int32', p)"),
    ("A[i, 0:4] = A[i, 0:4] * x", "A[i, 0:4] = A[i, 0:4] * T.Broadcast(x, 4)"),
    ("A[i, 0:4] = 0", "A[i, 0:4] = T.Broadcast(T.float32(0), 4)"),
]


@pytest.mark.parametrize(("mixed", "unified"), UNIFIED)
def test_mixed_dtypes_are_unified(mixed: str, unified: str) -> None:
    same(parse(program(unified)), parse(program(mixed)))
    verify(parse(program(mixed)))


def test_an_axis_has_the_wider_dtype_of_its_domain_and_value() -> None:
    body = 'with T.block("b"):\n    v = T.axis.spatial(T.int64(16), i)\n    T.reads()\n    T.writes(C[v])\n    C[v] = v'
    realize = next(n for n in walk(parse(program(body))["main"].body) if isinstance(n, BlockRealize) and n.iter_values)
    (axis,) = realize.block.iter_vars
    assert (axis.var.dtype, axis.dom.min.dtype, realize.iter_values[0].dtype) == ("int64",) * 3


LOWERED = """
@T.prim_func
def main(A: T.Buffer((4, 8), "float32"), B: T.Buffer((32,), "float32")):
{body}
"""


@pytest.mark.parametrize(
    "body",
    [
        'X = T.allocate([8], "float32", "global")\nX_1 = T.decl_buffer((8,), data=X)\nX_1[0] = A[0, 0]',
        'X = T.allocate([8], "float32", "global")\nX_1 = T.Buffer((8,), data=X, scope="global")\nX_1[0] = A[0, 0]',
        'with T.allocate([8], "float32", "global") as X:\n    X[0] = A[0, 0]',
        'with T.decl_buffer([8], "float32") as X:\n    X[0] = A[0, 0]',
        'X = T.decl_buffer([8], "float32")\nX[0] = A[0, 0]',
        'X = T.allocate([8], "float32", "global")\nA_1 = T.decl_buffer((32,), data=A.data)\nX[0] = A_1[0]',
    ],
)
def test_lowered_allocations_are_written_in_many_ways(body: str) -> None:
    text = LOWERED.format(body="\n".join(f"    {line}" for line in body.splitlines()))
    func = parse(text)["main"]
    assert isinstance(func.body, Allocate)
    round_trips(parse(text))


def test_an_allocation_in_a_loop_of_a_lowered_program_is_made_there() -> None:
    func = parse(
        LOWERED.format(body="    for i in range(4):\n        X = T.alloc_buffer((8,))\n        X[0] = A[i, 0]")
    )["main"]
    assert isinstance(func.body, For)
    assert isinstance(func.body.body, Allocate)


def test_launched_threads_are_bound_loops() -> None:
    launched = (
        'bx = T.launch_thread("blockIdx.x", 4)\ntx = T.launch_thread("threadIdx.x", 8)\nB[bx * 8 + tx] = A[bx, tx]'
    )
    declared = (
        'bx = T.env_thread("blockIdx.x")\ntx = T.env_thread("threadIdx.x")\nT.launch_thread(bx, 4)\n'
        "T.launch_thread(tx, 8)\nB[bx * 8 + tx] = A[bx, tx]"
    )
    bound = (
        'for bx in T.thread_binding(4, thread="blockIdx.x"):\n    for tx in T.thread_binding(0, 8, "threadIdx.x"):\n'
        "        B[bx * 8 + tx] = A[bx, tx]"
    )
    texts = [
        LOWERED.format(body="\n".join(f"    {row}" for row in b.splitlines())) for b in (launched, declared, bound)
    ]
    same(parse(texts[0]), parse(texts[1]))
    same(parse(texts[0]), parse(texts[2]))


def test_a_missing_metadata_section_is_said_so() -> None:
    with pytest.raises(ScriptError, match=r"metadata\[\.\.\.\], an object that was printed without its contents"):
        parse(program('B[i, j] = metadata["tir.IntImm"][0]'))


SILENT = """
with T.block("b"):
    {attribute}
    v = T.axis.spatial(16, j)
    D[v] = D[v] + T.float64(1)
"""


def test_a_remainder_of_floats_is_fmod_as_in_tvm() -> None:
    assert "T.fmod(D[i], T.float64(3.0))" in round_trips(parse(program("D[i] = T.truncmod(D[i], T.float64(3))")))


def test_a_block_that_says_it_touches_nothing_has_its_accesses_inferred() -> None:
    silent = parse(program(SILENT.format(attribute="T.reads(); T.writes()")))
    verify(silent)
    same(silent, parse(program(SILENT.format(attribute="pass"))))
    assert "T.writes(D[v])" in round_trips(silent)


def test_a_buffer_in_an_attribute_is_its_name() -> None:
    named = parse(program(SILENT.format(attribute="T.block_attr({'free': [A]})")))
    same(named, parse(program(SILENT.format(attribute="T.block_attr({'free': ['A']})"))))
    round_trips(named)


def test_a_scalar_declared_without_a_value_changes() -> None:
    cell = "q: T.int32\nq = 7\nwhile q > i:\n    q = q - 1\n    q -= 1\nB[i, j] = q"
    buffer = "q = T.allocate([1], 'int32', 'local')\nq[0] = 7\nwhile q[0] > i:\n"
    buffer += "    q[0] = q[0] - 1\n    q[0] -= 1\nB[i, j] = q[0]"
    module = parse(program(cell))
    same(module, parse(program(buffer)))
    round_trips(module)
