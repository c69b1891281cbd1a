"""Text outside the subset: every refusal says file, line, column, construct, and the next step."""

from __future__ import annotations

import pytest

from crossfarm.errors import InvalidModule, ScriptError
from crossfarm.frontends.tvmscript import parse
from tests.frontends.helpers import program

#: The first line of what ``program`` is given.
FIRST = 10

#: line → (column, construct, what the hint mentions)
EXPRESSIONS = [
    ("A[i, j] = T.expp(x)", 11, "T.expp", "T.exp"),
    ("A[i, j] = T.tvm_thread_allreduce(x)", 11, "T.tvm_thread_allreduce", "reduce axes"),
    ("A[i, j] = exp(x)", 11, "exp", "T.exp"),
    ("A[i, j] = y", 11, "y", "declare"),
    ("A[i, j] = xx", 11, "xx", "x"),
    ("A[i, j] = lambda: x", 11, "lambda", "expression"),
    ("A[i, j] = [x for x in A]", 11, "comprehension", "write"),
    ("A[i, j] = f'{x}'", 11, "f-string", "plain"),
    ("A[i, j] = x if p else x", 11, "conditional expression", "T.if_then_else"),
    ("A[i, j] = (y := x)", 12, "assignment expression", "statement"),
    ("A[i, j] = x ** x", 11, "**", "T.pow"),
    ("A[i, j] = x @ x", 11, "@", "loops"),
    ("A[i, j] = 'text'", 11, "string", ""),
    ("A[i, j] = None", 11, "NoneType", ""),
    ("A[i, j] = 1j", 11, "complex", ""),
    ("A[i, j] = x.real", 11, "x.real", ""),
    ("A[i, j] = T.float32", 11, "T.float32", "call"),
    ("A[i, j] = A", 11, "A", "index"),
    ("A[i, j] = T", 11, "T", ""),
    ("A[i, j] = A[i]", 11, "subscript", ""),
    ("A[i] = x", 1, "subscript", ""),
    ("A[x, 0] = x", 1, "subscript", "integers"),
    ("x[0] = x", 1, "subscript", ""),
    ("A[i, 0:n] = x", 6, "slice", "constant"),
    ("A[i, :] = x", 6, "slice", "lanes"),
    ("B[i, j] = i / j", 11, "/", "//"),
    ("B[i, j] = 1 / 2", 11, "/", "//"),
    ("B[i, j] = 1 // 0", 11, "floordiv", ""),
    ("B[i, j] = 1 << 65", 11, "shl", ""),
    ("B[i, j] = 2147483648", 11, "literal", ""),
    ("B[i, j] = T.int8(200)", 11, "T.int8", "wider"),
    ("B[i, j] = T.int32(0.5)", 11, "T.int32", "float"),
    ("B[i, j] = T.int32()", 11, "T.int32", "n = T.int32()"),
    ("A[i, j] = T.float32('infinity')", 21, "T.float32", "inf"),
    ("B[i, j] = x", 11, "buffer store", "T.Cast"),
    ("B[i, j] = x & x", 11, "x & x", "T.reinterpret"),
    ("A[i, j] = x % x", 11, "x % x", "T.fmod"),
    ("A[i, j] = p + p", 11, "p + p", "cast"),
    ("E[i] = i and j", 8, "i and j", "compare"),
    ("E[i] = not i", 8, "not i", "compare"),
    ("E[i] = i in j", 8, "in", "=="),
    ("E[i] = i is j", 8, "is", "=="),
    ("A[i, j] = T.if_then_else(i, x, x)", 11, "T.if_then_else", "compare"),
    ("A[i, j] = T.exp(i)", 11, "T.exp", "T.Cast"),
    ("A[i, j] = T.exp(x, x)", 11, "T.exp", ""),
    ("A[i, j] = T.exp(*x)", 11, "T.exp", ""),
    ("A[i, j] = T.max(x)", 11, "T.max", "it takes"),
    ("A[i, j] = T.max(x, x, c=x)", 25, "T.max", "takes"),
    ("A[i, j] = T.Cast('float33', x)", 18, "dtype float33", "float32"),
    ("A[i, j] = T.Broadcast(x, 4)", 11, "buffer store", ""),
    ("A[i, 0:4] = T.Broadcast(x, 4) + T.Broadcast(x, 8)", 13, "T.Broadcast(x, 4) + T.Broadcast(x, 8)", "length"),
    ("A[i, 0:4] = T.Broadcast(x, 100000)", 28, "the number of lanes", ""),
    ("B[i, j] = T.reinterpret('int32', m)", 11, "T.reinterpret", "width"),
    ("A[i, j] = T.call_extern('float32', 'system', x)", 36, "T.call_extern", "C library"),
    ("A[i, j] = T.call_extern('float32', 'powff', x, x)", 36, "T.call_extern", "powf"),
    ("A[i, j] = T.call_extern('float32', 'powf', x)", 11, "T.call_extern", ""),
    ("A[i, j] = T.call_packed('f', x)", 11, "T.call_packed", "T.call_extern"),
    ("A[i, j] = cls.other(x)", 11, "cls.other", "R.call_tir"),
    ("A[i, j] = T.infinity('int32')", 11, "T.infinity", "floats"),
    ("A[i, j] = T.block('b')", 11, "T.block", ""),
]  # fmt: skip

STATEMENTS = [
    ("x", 1, "expression statement", "T.evaluate"),
    ("T.sreial(4)", 1, "T.sreial", "T.serial"),
    ("T.grid(4)", 1, "T.grid", ""),
    ("x += 1.0", 1, "augmented assignment", "buffer"),
    ("A[i, j] **= x", 1, "augmented assignment", ""),
    ("A[i, j] = B[i, j] = 0", 1, "chained assignment", ""),
    ("x.y = 1", 1, "assignment", ""),
    ("a, b = x, x", 1, "assignment", "T.axis.remap"),
    ("Q = A", 5, "assignment", "itself"),
    ("i = j", 1, "assignment", "buffer"),
    ("v: T.int32 = x", 14, "annotation", "T.Cast"),
    ("A[0]: T.int32", 1, "annotation", ""),
    ("v: str = x", 4, "the dtype of v", ""),
    ("import os", 1, "import", "top"),
    ("def f(): pass", 1, "nested function", "module"),
    ("class C: pass", 1, "nested class", ""),
    ("return", 1, "return", "buffers"),
    ("break", 1, "break", "while"),
    ("continue", 1, "continue", "if"),
    ("try:\n    pass\nfinally:\n    pass", 1, "try", ""),
    ("raise x", 1, "raise", "assert"),
    ("del x", 1, "del", ""),
    ("global x", 1, "global", ""),
    ("assert i", 8, "assert", "compare"),
    ("if i:\n    pass", 4, "if", "compare"),
    ("while i:\n    pass", 7, "while", "compare"),
    ("while p:\n    pass\nelse:\n    pass", 5, "while else", ""),
    ("for k in A:\n    pass", 10, "for … in A", "range"),
    ("for k in T.paralel(4):\n    pass", 10, "for … in T.paralel", "parallel"),
    ("for k in range(4.5):\n    pass", 10, "for", "integers"),
    ("for k in range():\n    pass", 10, "range", ""),
    ("for k in range(0, 4, 0):\n    pass", 22, "the step of a loop", ""),
    ("for k, l in range(4):\n    pass", 5, "for", ""),
    ("for k, k in T.grid(4, 4):\n    pass", 8, "for", ""),
    ("for A[0, 0] in range(4):\n    pass", 5, "for", ""),
    ("for k in T.thread_binding(4, thread='threadIdx.w'):\n    pass", 37, "thread threadIdx.w", "threadIdx"),
    ("for k in T.thread_binding(4):\n    pass", 10, "T.thread_binding", "thread="),
    ("for k in T.serial(4, annotations=3):\n    pass", 34, "annotations of T.serial", "key"),
    ("with open('f') as f:\n    pass", 6, "with open", ""),
    ("with T.blok('b'):\n    pass", 6, "with T.blok", "T.block"),
    ("with T.block('b') as v:\n    pass", 22, "T.block as", "T.axis.spatial"),
    ("with T.init():\n    pass", 6, "T.init", "T.block"),
    ("T.reads(A[i, j])", 1, "T.reads", "T.block"),
    ("v = T.axis.spatial(4, i)", 5, "T.axis.spatial", "T.block"),
    ("T.func_attr({})", 1, "T.func_attr", ""),
    ("X = T.alloc_buffer((4,), 'float31')", 26, "dtype float31", "float32"),
    ("X = T.alloc_buffer((4,), scope='sharde')", 32, "scope sharde", "shared"),
    ("X = T.alloc_buffer((-4,))", 21, "T.alloc_buffer", ""),
    ("X = T.alloc_buffer((4.5,))", 21, "T.alloc_buffer", "integers"),
    ("X = T.alloc_buffer((4,), strides=(1, 1))", 34, "T.alloc_buffer strides", ""),
    ("X = T.alloc_buffer((4,), align=3)", 32, "align", ""),
    ("X = T.alloc_buffer((4,), axis_separators=[1])", 42, "T.alloc_buffer axis_separators", ""),
    ("X = T.match_buffer(A[0:4, 0], (4,))", 5, "T.match_buffer of a region", "T.block"),
    ("T.attr(A)", 8, "T.attr", ""),
]  # fmt: skip


@pytest.mark.parametrize(("text", "column", "construct", "hint"), [*EXPRESSIONS, *STATEMENTS])
def test_a_refusal_says_where_and_what_and_what_next(text: str, column: int, construct: str, hint: str) -> None:
    with pytest.raises(ScriptError) as caught:
        parse(program(text), "file.py")
    error = caught.value
    assert (error.filename, error.column - 8, error.construct) == ("file.py", column, construct)
    assert error.line in (FIRST, FIRST + 3) or "else" in construct
    assert str(error).startswith(f"file.py:{error.line}:{error.column}: ")
    assert hint in error.hint


BLOCKS = [
    ("v = T.axis.spatial(4)", 5, "T.axis.spatial"),
    ("v = T.axis.spatial(4.0, i)", 20, "T.axis.spatial"),
    ("v = T.axis.spacial(4, i)", 5, "T.axis.spacial"),
    ("v, w = T.axis.remap('SR', [i])", 8, "T.axis.remap"),
    ("v, w = T.axis.remap('SX', [i, j])", 21, "T.axis.remap"),
    ("v = T.axis.remap('S', [i + 1])", 24, "T.axis.remap"),
    ("T.where(i)", 9, "T.where"),
    ("T.where(p)\nT.where(p)", 1, "T.where"),
    ("T.reads(A[i])", 9, "T.reads"),
    ("T.reads(i)", 9, "T.reads"),
    ("T.reads(Q)", 9, "Q"),
    ("T.reads(A[i, 0:4:2])", 18, "region"),
    ("T.reads()\nT.reads()", 1, "T.reads"),
    ("T.block_attr(3)", 14, "T.block_attr"),
    ("T.block_attr({1: 2})", 15, "T.block_attr"),
    ("T.block_attr({'a': 1, 'a': 2})", 23, "T.block_attr"),
    ("with T.init():\n    pass\nwith T.init():\n    pass", 6, "T.init"),
    ("for k in range(4):\n    T.where(p)", 5, "T.where"),
]


@pytest.mark.parametrize(("text", "column", "construct"), BLOCKS)
def test_a_mistake_in_a_block_is_placed(text: str, column: int, construct: str) -> None:
    body = "with T.block('b'):\n" + "\n".join(f"    {line}" for line in text.splitlines())
    with pytest.raises(ScriptError) as caught:
        parse(program(body))
    assert (caught.value.column - 12, caught.value.construct) == (column, construct)


FUNCTIONS = [
    ("def f():\n    pass", 1, 1, "def f"),
    ("@prim_func\ndef f():\n    pass", 1, 2, "@prim_func"),
    ("@T.primfunc\ndef f():\n    pass", 1, 2, "@T.primfunc"),
    ("@os.system('x')\ndef f():\n    pass", 1, 2, "@os.system"),
    ("@T.prim_func(privat=True)\ndef f():\n    pass", 1, 21, "T.prim_func"),
    ("@T.prim_func(private=1)\ndef f():\n    pass", 1, 22, "T.prim_func"),
    ("@R.function\ndef f():\n    pass", 2, 1, "def f"),
    ("@T.prim_func\ndef f(a):\n    pass", 2, 7, "parameter"),
    ("@T.prim_func\ndef f(a: int):\n    pass", 2, 10, "annotation int"),
    ("@T.prim_func\ndef f(a: T.Bufer((1,))):\n    pass", 2, 10, "annotation T.Bufer((1,))"),
    ("@T.prim_func\ndef f(a: T.int32 = 3):\n    pass", 2, 20, "default value"),
    ("@T.prim_func\ndef f(*a: T.int32):\n    pass", 2, 8, "parameter"),
    ("@T.prim_func\ndef f(a: T.int32) -> T.int32:\n    pass", 2, 22, "return annotation"),
    ("@T.prim_func\ndef f(a: T.Buffer((4,), 'float32', 1, 2, 3, 4, 5, 6, 7, 8, 9, 10)):\n    pass", 2, 63, "T.Buffer"),
    ("@T.prim_func\ndef f(a: T.Buffer(('n +',))):\n    pass", 2, 20, "quoted expression"),
    ("@T.prim_func\ndef f(a: T.Buffer(('n.x',))):\n    pass", 2, 20, "n.x"),
    ("@T.prim_func\ndef f(a: T.Buffer((n,))):\n    pass", 2, 20, "n"),
    ("@T.prim_func\ndef f(a: T.handle):\n    a[0] = 1", 3, 5, "subscript"),
    ("@T.prim_func\ndef f(a: T.handle):\n    A = T.match_buffer(a)", 3, 9, "T.match_buffer"),
    ("@T.prim_func\ndef f(a: T.handle):\n    A = T.match_buffer(a, (1,))\n    B = T.match_buffer(a, (1,))", 4, 9,
     "T.match_buffer"),
    ("async def f():\n    pass", 1, 1, "async function"),
    ("class M:\n    pass", 1, 1, "class M"),
    ("@I.irmodule\nclass M:\n    pass", 1, 2, "@I.irmodule"),
    ("@I.ir_module\nclass M(Base):\n    pass", 2, 9, "class M"),
    ("@I.ir_module\nclass M:\n    x = 3", 3, 5, "assignment"),
    ("@I.ir_module\nclass M:\n    I.module_global_infos({})", 3, 5, "I.module_global_infos"),
    ("@I.ir_module\nclass M:\n    pass\n@I.ir_module\nclass N:\n    pass", 5, 1, "class N"),
    ("@I.ir_module\nclass M:\n    @T.prim_func\n    def f(): pass\n    @T.prim_func\n    def f(): pass", 6, 5, "def f"),
    ("x = 3", 1, 1, "assignment"),
    ("print(3)", 1, 1, "expression"),
    ("if True:\n    pass", 1, 1, "if"),
    ("", 1, 1, "script"),
    ("def f(:\n", 1, 7, "syntax"),
    ("from tvm.script import *", 1, 1, "import"),
    ("import numpy as np", 1, 1, "import numpy"),
    ("from . import x", 1, 1, "import ."),
]  # fmt: skip


@pytest.mark.parametrize(("text", "line", "column", "construct"), FUNCTIONS)
def test_a_mistake_around_a_function_is_placed(text: str, line: int, column: int, construct: str) -> None:
    with pytest.raises(ScriptError) as caught:
        parse(text)
    assert (caught.value.line, caught.value.column, caught.value.construct) == (line, column, construct)


def test_columns_count_characters_and_the_line_is_shown() -> None:
    with pytest.raises(ScriptError) as caught:
        parse("@T.prim_func\ndef f(Ä: T.Buffer((1,))):\n    Ä[0] = 'äöü' + y")
    error = caught.value
    assert (error.line, error.column) == (3, 12)
    assert "    Ä[0] = 'äöü' + y\n" + " " * 11 + "^" in str(error)


def test_a_refusal_is_an_invalid_module() -> None:
    with pytest.raises(InvalidModule):
        parse("x")
