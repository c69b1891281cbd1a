"""Programs written in Python source: the decorators read them, and never run their bodies."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType
from typing import TypeVar

import pytest

from crossfarm.errors import InvalidModule, ScriptError
from crossfarm.frontends.tvmscript import parse
from crossfarm.ir.function import PrimFunc
from crossfarm.ir.graph.expr import Function
from crossfarm.ir.module import IRModule
from crossfarm.ir.printer import print_function, print_module
from crossfarm.script import ir as I
from crossfarm.script import relax as R
from crossfarm.script import tir as T
from tests.frontends.helpers import same

SIZE = 16
n = TypeVar("n")


@I.ir_module
class Doubler:
    """Doubles."""

    I.module_attrs({"version": 1})

    @T.prim_func
    def main(A: T.Buffer((SIZE, n), "float32"), B: T.Buffer((SIZE, n), "float32")):
        T.func_attr({"tir.noalias": True})
        for i, j in T.grid(SIZE, n):
            with T.block("B"):
                vi, vj = T.axis.remap("SS", [i, j])
                B[vi, vj] = A[vi, vj] * 2.0

    @T.prim_func(private=True)
    def other(k: T.int32):
        T.evaluate(k)


def test_a_decorated_class_is_a_module() -> None:
    assert isinstance(Doubler, IRModule)
    assert (Doubler.name, list(Doubler.functions), Doubler.attrs) == ("Doubler", ["main", "other"], {"version": 1})
    assert Doubler["other"].private


def test_a_decorated_function_is_a_function_with_the_constants_around_it() -> None:
    def make(factor: float) -> PrimFunc:
        @T.prim_func
        def scale(A: T.Buffer((SIZE,), "float32")):
            for i in range(SIZE):
                A[i] = A[i] * factor

        return scale

    text = '@T.prim_func\ndef scale(A: T.Buffer((16,), "float32")):\n    for i in range(16):\n        A[i] = A[i] * 3.0'
    same(IRModule({"scale": make(3.0)}), parse(text))


def test_only_plain_constants_are_captured() -> None:
    values = [1, 2]
    with pytest.raises(ScriptError, match="undefined name 'values'"):

        @T.prim_func
        def f(A: T.Buffer((4,), "int32")):
            A[0] = values[0]


def test_a_mistake_is_placed_in_the_file_it_is_in() -> None:
    with pytest.raises(ScriptError) as caught:

        @T.prim_func
        def f(A: T.Buffer((4,), "int32")):
            A[0] = lambda: 3

    error = caught.value
    source = Path(__file__).read_text().splitlines()[error.line - 1]
    assert error.filename == __file__
    assert source[error.column - 1 :].startswith("lambda: 3")


@I.ir_module
class Network:
    @R.function
    def main(x: R.Tensor((n, SIZE), "float32")):
        cls = Network
        return R.add(cls.twice(x), x)

    @R.function(private=True)
    def twice(x: R.Tensor(("m", 16), "float32")) -> R.Tensor(("m", 16), "float32"):
        return R.add(x, x)


def test_a_decorated_class_may_hold_graph_functions() -> None:
    assert list(Network.graph_functions) == ["main", "twice"]
    assert "cls.twice(x)" in Network.script()


def test_a_decorated_graph_function_is_a_function_with_the_constants_around_it() -> None:
    @R.function(pure=False)
    def scale(x: R.Tensor((SIZE,), "float32")):
        return R.multiply(x, R.const(SIZE, "float32"))

    assert isinstance(scale, Function)
    assert not scale.pure
    assert 'R.multiply(x, R.const(16.0, "float32"))' in print_function(scale, "scale")


def test_printed_graph_functions_run_as_python(tmp_path: Path) -> None:
    path = tmp_path / "printed_network.py"
    path.write_text(Network.script())
    assert _import(path).Network.script() == Network.script()
    path.write_text(print_function(Network["twice"], "twice"))
    assert print_function(_import(path).twice, "twice") == print_function(Network["twice"], "twice")


def test_code_without_source_says_what_to_do() -> None:
    namespace = {"T": T}
    with pytest.raises(InvalidModule, match="source of f is not to be had"):
        exec("@T.prim_func\ndef f(A: T.int32):\n    pass", namespace)  # noqa: S102


def _import(path: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[path.stem] = module
    try:
        spec.loader.exec_module(module)
    finally:
        del sys.modules[path.stem]
    return module


def test_printed_text_runs_as_python_and_gives_the_same_module(tmp_path: Path) -> None:
    path = tmp_path / "printed_program.py"
    path.write_text(print_module(Doubler))
    same(_import(path).Doubler, Doubler)


def test_a_printed_function_runs_as_python(tmp_path: Path) -> None:
    path = tmp_path / "printed_function.py"
    path.write_text(print_function(Doubler["main"], "main"))
    same(IRModule({"main": _import(path).main}), IRModule({"main": Doubler["main"]}))


def test_annotations_evaluate_without_postponing_them(tmp_path: Path) -> None:
    path = tmp_path / "evaluated.py"
    path.write_text(
        "from crossfarm.script import ir as I, tirx as T\n\n"
        "@I.ir_module(check_well_formed=False)\nclass M:\n    @T.prim_func(s_tir=True)\n"
        '    def f(A: T.Buffer(("n",), "float32"), b: T.handle, k: T.float32x4):\n'
        "        n = T.int32()\n        B = T.match_buffer(b, (n,))\n        B[0] = A[0]\n"
    )
    assert list(_import(path).M.functions) == ["f"]
