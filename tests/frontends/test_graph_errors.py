"""What is outside the subset in graph functions: errors that say where, what and what next; nothing of it runs."""

from __future__ import annotations

from pathlib import Path

import pytest

from crossfarm.errors import ScriptError
from crossfarm.frontends.tvmscript import parse

HEADER = """\
@I.ir_module
class M:
    @T.prim_func
    def kernel(A: T.Buffer((4,), "float32"), B: T.Buffer((4,), "float32")):
        T.evaluate(0)
    @R.function
    def other(x: R.Tensor((4,), "float32")) -> R.Tensor((4,), "float32"):
        return x
    @R.function
    def main(x: R.Tensor((4,), "float32"), y: R.Tensor((n, 4), "float32"), c: R.Tensor((), "bool")):
        n = T.int64()
        k = T.int32()
        cls = M
"""
FIRST = HEADER.count("\n") + 1


def program(body: str) -> str:
    return HEADER + "".join(f"        {line}\n" for line in body.splitlines())


#: The statement, column and construct of the error, and what its message or hint says.
STATEMENTS = [
    ("a = R.nn.rleu(x)", 5, "R.nn.rleu", "R.nn.relu"),
    ("a = R.add(x)", 5, "R.add", "needs 'x2'"),
    ("a = R.add(x, x, x)", 17, "R.add", "at most 2"),
    ("a = R.add(x, x, axis=1)", 22, "R.add", "it takes: x1, x2"),
    ("a = R.add(x, x1=x)", 17, "R.add", "twice"),
    ("a = R.add(*x)", 11, "starred argument", ""),
    ("a = R.add(**x)", 13, "double-starred argument", ""),
    ("a = R.add(x, (x, x))", 5, "R.add", "not a TupleType"),
    ("a = R.add(x, R.const(1, 'int8'))", 5, "R.add", "one dtype"),
    ("a = R.add(x, R.add(x, y[0]))", 23, "y[0]", "only tuples have items"),
    ("a = R.sum(x, axis=3)", 5, "R.sum", "3"),
    ("a = R.sum(x, axis='x')", 5, "R.sum", "'axis'"),
    ("a = R.sum(x, axis=x)", 19, "x", "no size"),
    ("a = R.astype(x, dtype='float31')", 5, "R.astype", "dtype"),
    ("a = R.matmul(x, x, out_layout='NHWC')", 31, "R.matmul out_layout", "NCHW"),
    ("a: R.Tensor((5,), 'float32') = R.add(x, x)", 4, "annotation", "R.match_cast"),
    ("a: R.Tensor((4,), 'float16') = R.add(x, x)", 4, "annotation", "float32"),
    ("a: R.Tensor(ndim=2) = R.add(x, x)", 4, "annotation", "R.Tensor((4,)"),
    ("a: R.Tuple(R.Tensor) = (x, x)", 4, "annotation", ""),
    ("a: R.Tensor((n + 1, 4), 'float32') = R.add(y, y)", 4, "annotation", "R.match_cast"),
    ("a: R.Tensr = R.add(x, x)", 4, "annotation R.Tensr", "R.Tensor"),
    ("a: R.Tensor((4,), vdevice='cuda:0') = x", 27, "R.Tensor vdevice", "target"),
    ("a: R.Tensor((-1,)) = x", 14, "R.Tensor", "-1"),
    ("a: R.Tensor((k,)) = x", 14, "R.Tensor", "int64"),
    ("a: R.Tensor((4.5,)) = x", 14, "R.Tensor", "integers"),
    ("a: R.Tensor((4,), 'float32x4') = x", 19, "R.Tensor", "scalars"),
    ("a: R.Prim(value='n') = n", 17, "R.Prim value", ""),
    ("a: int = x", 4, "annotation int", "R.Tensor"),
    ("a = metadata['relax.expr.Constant'][0]", 5, "metadata", "ONNX"),
    ("a = z", 5, "z", ""),
    ("a = x + x", 5, "x", "R.add(a, b)"),
    ("a = R.add(cls, x)", 11, "cls", ""),
    ("a = cls.othr(x)", 5, "cls.othr", "cls.other"),
    ("a = cls.other(x, x)", 5, "cls.other", "takes 1"),
    ("a = cls.other(y)", 5, "cls.other", "takes"),
    ("a = cls.other(x=x)", 17, "cls.other", "positional"),
    ("a = cls.kernel(x)", 5, "cls.kernel", "R.call_tir"),
    ("a = other(x)", 5, "other", "cls.other"),
    ("a = len(x)", 5, "len", ""),
    ("a = R.call_tir(cls.kernel, (x,))", 5, "R.call_tir", "out_sinfo="),
    ("a = R.call_tir(cls.other, (x,), R.Tensor((4,), 'int8'))", 16, "cls.other", "kernel"),
    ("a = R.call_tir('kernel', (x,), R.Tensor((4,), 'int8'))", 16, "R.call_tir", "call_dps_packed"),
    ("a = R.call_tir(cls.kernel, x, R.Shape([4]))", 31, "R.call_tir", "tensors"),
    ("a = R.call_tir(cls.kernel, x, R.Tensor((4,)))", 31, "annotation R.Tensor((4,))", "dtype"),
    ("a = R.call_tir(cls.kernel, x, out_sinfo=R.Tensor((4,), 'int8'), out_ty=R.Tensor((4,), 'int8'))", 5,
     "R.call_tir", "once"),
    ("a = R.call_dps_packed(cls.kernel, x, R.Tensor((4,), 'int8'))", 23, "the function of R.call_dps_packed", ""),
    ("a = R.call_pure_packed('f', x)", 5, "R.call_pure_packed", "R.call_dps_packed"),
    ("a = R.const([1, [2]])", 5, "R.const", "one length"),
    ("a = R.const(300, 'int8')", 5, "R.const", "fit"),
    ("a = R.const(1.5, 'int8')", 5, "R.const", "int8"),
    ("a = R.const(n)", 13, "R.const", ""),
    ("a = R.const(x)", 13, "x", ""),
    ("a = R.constant('sha256:12', R.Tensor((4,), 'int8'))", 16, "R.constant", "64"),
    ("a = R.constant('sha256:" + "0" * 64 + "', R.Tensor((n,), 'int8'))", 91, "R.constant", "known shape"),
    ("a = R.constant('sha256:" + "0" * 64 + "', R.Tensor((0,), 'int8'))", 16, "R.constant", "nothing"),
    ("a = R.shape([x])", 14, "x", "no size"),
    ("a = R.prim_value(x)", 18, "R.prim_value", "R.const"),
    ("a = R.match_cast(x, R.Tensor(ndim=2))", 21, "annotation R.Tensor(ndim=2)", "name sizes"),
    ("a = R.match_cast(x)", 5, "R.match_cast", ""),
    ("a = (x, x)[2]", 5, "(x, x)[2]", "no item 2"),
    ("a = x if c else y", 5, "conditional expression", ""),
    ("a, b = x, x", 1, "assignment", "a = t[0]"),
    ("a = b = x", 1, "chained assignment", ""),
    ("x += x", 1, "augmented assignment", "new name"),
    ("a: R.Tensor((4,), 'float32')", 1, "annotation", ""),
    ("R.add(x, x)", 1, "expression statement", "x = value"),
    ("R.print(x)", 1, "R.print", ""),
    ("R.output(x)", 1, "R.output", "R.dataflow"),
    ("R.func_attr(3)", 13, "R.func_attr", ""),
    ("for i in range(4):\n    pass", 1, "for", "R.call_tir"),
    ("with T.block('b'):\n    pass", 6, "with T.block('b')", "R.dataflow"),
    ("with R.dataflow(3):\n    pass", 6, "R.dataflow", ""),
    ("with R.dataflow():\n    with R.dataflow():\n        pass", 5, "R.dataflow", ""),
    ("with R.dataflow():\n    R.output(x)", 14, "R.output", "what the block computes"),
    ("with R.dataflow():\n    return x", 5, "return", ""),
    ("if c:\n    a = x", 1, "if", "both branches"),
    ("if c:\n    a = x\nelse:\n    b = x", 5, "if", "both branches"),
    ("if c:\n    a = x\nelse:\n    a = y", 1, "if", "R.match_cast"),
    ("if c:\n    a = x\nelse:\n    pass", 5, "if", "both branches"),
    ("return x\na = x", 1, "return", ""),
    ("return", 1, "return", ""),
    ("a = x", 5, "def main", "return value"),
]  # fmt: skip


@pytest.mark.parametrize(("text", "column", "construct", "says"), STATEMENTS)
def test_a_refusal_says_where_and_what_and_what_next(text: str, column: int, construct: str, says: str) -> None:
    with pytest.raises(ScriptError) as caught:
        parse(program(text), "file.py")
    error = caught.value
    indent = 0 if construct == "def main" else 8
    assert (error.filename, error.column - indent, error.construct) == ("file.py", column, construct)
    assert error.line >= FIRST or construct == "def main"
    assert str(error).startswith(f"file.py:{error.line}:{error.column}: ")
    assert says in str(error)


#: Around functions: line, column and construct.
FUNCTIONS = [
    ("@R.function\ndef f(x):\n    return x", 2, 7, "parameter"),
    ("@R.function\ndef f(x: R.Tensor):\n    return x", 2, 10, "annotation R.Tensor"),
    ("@R.function\ndef f(x: R.Tensor((4,))):\n    return x", 2, 10, "annotation R.Tensor((4,))"),
    ("@R.function\ndef f(x: R.Tensor((n,), 'int8')):\n    return x", 2, 20, "n"),
    ("@R.function\ndef f(x: R.Tensor(('n +',), 'int8')):\n    return x", 2, 20, "quoted expression"),
    ("@R.function\ndef f(x: T.Buffer((4,))):\n    return x", 2, 10, "annotation T.Buffer((4,))"),
    ("@R.function\ndef f(x: R.Object):\n    return x", 2, 10, "annotation R.Object"),
    ("@R.function\ndef f(x: R.Tensor((), 'int8') = 3):\n    return x", 2, 33, "default value"),
    ("@R.function\ndef f(*x: R.Tensor((), 'int8')):\n    return x", 2, 8, "parameter"),
    ("@R.function\ndef f(x: R.Tensor((), 'int8')) -> R.Tensor((), 'int16'):\n    return x", 2, 35, "return annotation"),
    ("@R.function(privat=True)\ndef f(x: R.Tensor((), 'int8')):\n    return x", 1, 20, "R.function"),
    ("@R.function(pure=0)\ndef f(x: R.Tensor((), 'int8')):\n    return x", 1, 18, "R.function"),
    ("@R.function(3)\ndef f(x: R.Tensor((), 'int8')):\n    return x", 1, 13, "R.function"),
    ("@R.functio\ndef f(x: R.Tensor((), 'int8')):\n    return x", 1, 2, "@R.functio"),
    ("@T.prim_func\n@R.function\ndef f(x: R.Tensor((), 'int8')):\n    return x", 1, 2, "@T.prim_func"),
    ("@R.function\ndef f(x: R.Tensor((), 'int8')):\n    pass", 2, 1, "def f"),
]  # fmt: skip


@pytest.mark.parametrize(("text", "line", "column", "construct"), FUNCTIONS)
def test_a_mistake_around_a_function_is_placed(text: str, line: int, column: int, construct: str) -> None:
    with pytest.raises(ScriptError) as caught:
        parse(text)
    assert (caught.value.line, caught.value.column, caught.value.construct) == (line, column, construct)


@pytest.mark.parametrize(
    "text",
    [
        "a = __import__('os').system('touch {path}')",
        "a = open('{path}', 'w')",
        "a = R.add(x, open('{path}', 'w'))",
        "a = R.sum(x, axis=open('{path}', 'w'))",
        "a = R.const(open('{path}', 'w'))",
        "a: open('{path}', 'w') = x",
        "a = R.shape([open('{path}', 'w')])",
        "a = R.match_cast(x, R.Tensor(('open(\"{path}\", \"w\")',), 'int8'))",
        "a = [open('{path}', 'w') for _ in (1,)]",
        "a = (lambda: open('{path}', 'w'))()",
        "a = x.__class__",
        "a = cls.__class__",
        "a = cls.__init_subclass__()",
        "with open('{path}', 'w'):\n    pass",
        "if open('{path}', 'w'):\n    a = x\nelse:\n    a = x",
        "R.func_attr(open('{path}', 'w'))",
        "import os\nos.system('touch {path}')",
        "def f():\n    pass",
    ],
)
def test_text_that_would_act_if_it_ran_is_refused_and_does_not_run(text: str, tmp_path: Path) -> None:
    path = tmp_path / "touched"
    with pytest.raises(ScriptError):
        parse(program(text.replace("{path}", str(path))))
    assert not path.exists()


@pytest.mark.timeout(20)
@pytest.mark.parametrize(
    "text",
    [
        "a = " + "R.nn.relu(" * 100_000 + "x" + ")" * 100_000,
        "a = " + "(" * 100_000,
        "a = " + "(" * 300 + "x" + ",)" * 300,
        "a = x" + "[0]" * 1000,
        "a = R.const(" + "[" * 1000 + "1" + "]" * 1000 + ")",
        "a: " + "R.Tuple(" * 1000 + "R.Tensor" + ")" * 1000 + " = x",
        "a = R.shape([" + "n + " * 100_000 + "n])",
        "\n".join("    " * d + "if c:" for d in range(99)) + "\n" + "    " * 99 + "a = x",
    ],
)
def test_monstrous_text_is_refused(text: str) -> None:
    with pytest.raises(ScriptError) as caught:
        parse(program(text))
    assert len(str(caught.value)) < 2000


def test_what_is_nested_deep_is_read() -> None:
    module = parse(program("return " + "R.nn.relu(" * 120 + "x" + ")" * 120))
    assert module.script().count("R.nn.relu") == 120
    module = parse(program("return R.shape([" + "n * n + " * 100 + "1])"))
    assert "n * n * 100 + 1" in module.script()


def test_a_long_function_is_read_in_time_proportional_to_its_length() -> None:
    lines = ["a = x", *["a = R.add(a, R.nn.relu(a))"] * 1000, "return a"]
    module = parse(program("\n".join(lines)))
    assert module.script().count("R.add(") == 1000
