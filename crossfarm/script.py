"""Writing programs in Python source: ``from crossfarm.script import ir as I, tir as T, relax as R``.

::

    @I.ir_module
    class Module:
        @T.prim_func
        def double(A: T.Buffer((16,), "float32"), B: T.Buffer((16,), "float32")):
            for i in T.serial(16):
                with T.block("B"):
                    v_i = T.axis.spatial(16, i)
                    B[v_i] = A[v_i] * T.float32(2)

``Module`` is then an ``IRModule``, and a decorated function alone a ``PrimFunc``, or a ``Function`` where the decorator
is ``@R.function``. The decorators read the definition's source with the same parser as text from a file: bodies never
run. Plain numbers and strings that the source names from around it (``N = 16``) are taken as constants, and a
``Target`` as a function's.
"""

from __future__ import annotations

import inspect
import sys
import textwrap
from collections.abc import Callable
from types import FrameType
from typing import Any, NoReturn, TypeVar

from crossfarm.errors import InvalidModule
from crossfarm.frontends.tvmscript.module import parse_module
from crossfarm.frontends.tvmscript.source import Source
from crossfarm.ir.module import AnyFunction, IRModule
from crossfarm.target import Target

__all__ = ["ir", "relax", "tir", "tirx"]


class Namespace:
    """A dialect as Python evaluates it: annotations and class bodies may use any name, which then means nothing.

    Only the parser gives names a meaning. So that ``T.Buffer((16,), "float32")`` in an annotation can be evaluated,
    every attribute, call and subscript of a namespace is a namespace again.
    """

    def __init__(self, name: str) -> None:
        self._name = name

    def canonical_name(self) -> str:
        """The dialect's canonical name: ``tir`` for ``T``."""
        return self._name

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):  # what Python itself asks for (copying, pickling, inspection) is not there
            raise AttributeError(name)
        return Namespace(f"{self._name}.{name}")

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return self

    def __getitem__(self, item: Any) -> Any:
        return self

    def __repr__(self) -> str:
        return f"<script {self._name}>"


class IRNamespace(Namespace):
    """``I``"""

    def ir_module(self, cls: type | None = None, /, **options: Any) -> Any:
        """Decorator: the class's source as an ``IRModule``. Options are TVM's, and are read from the source."""
        if cls is None:
            frame = sys._getframe(1)
            return lambda inner: _module_of(inner, frame)
        return _module_of(cls, sys._getframe(1))


class TIRNamespace(Namespace):
    """``T``"""

    def prim_func(self, func: Callable[..., Any] | None = None, /, **options: Any) -> Any:
        """Decorator: the function's source as a ``PrimFunc``; inside a class it is left to the module's decorator."""
        if func is None:
            frame = sys._getframe(1)
            return lambda inner: _function_of(inner, frame)
        return _function_of(func, sys._getframe(1))


class RelaxNamespace(Namespace):
    """``R``"""

    def function(self, func: Callable[..., Any] | None = None, /, **options: Any) -> Any:
        """Decorator of graph functions; inside a class it is left to the module's decorator."""
        if func is None:
            frame = sys._getframe(1)
            return lambda inner: _function_of(inner, frame)
        return _function_of(func, sys._getframe(1))


ir = IRNamespace("ir")
tir = TIRNamespace("tir")
relax = RelaxNamespace("relax")
#: The newer name of ``tir``.
tirx = tir


def _module_of(cls: type, frame: FrameType) -> IRModule:
    return parse_module(_source_of(cls), _captured(frame))


def _function_of(func: Callable[..., Any], frame: FrameType) -> AnyFunction | Callable[..., Any]:
    scope, _, name = func.__qualname__.rpartition(".")
    if scope and not scope.endswith("<locals>"):
        return func  # a method: the class's decorator reads the whole class
    return parse_module(_source_of(func), _captured(frame, func))[name]


def _captured(frame: FrameType, func: Callable[..., Any] | None = None) -> dict[str, Any]:
    """Names around the definition that may stand for something in it: constants, sizes, targets and the dialects."""
    found = {**frame.f_globals, **frame.f_locals}
    if func is not None:
        found.update(inspect.getclosurevars(func).nonlocals)
    kinds = (bool, int, float, str, TypeVar, Target, Namespace)
    return {name: value for name, value in found.items() if isinstance(value, kinds)}


def _source_of(obj: type | Callable[..., Any]) -> Source:
    """The definition's own text, placed where it stands in its file. Raises InvalidModule where there is none."""
    try:
        lines, first = inspect.getsourcelines(obj)
        filename = inspect.getsourcefile(obj) or "<script>"
    except (OSError, TypeError):
        _no_source(obj)
    text = textwrap.dedent("".join(lines))
    indent = len(lines[0]) - len(lines[0].lstrip())
    return Source(text, filename, first_line=first, indent=indent)


def _no_source(obj: type | Callable[..., Any]) -> NoReturn:
    raise InvalidModule(
        f"the source of {obj.__qualname__} is not to be had (an interactive session, or code made at run time)",
        hint="keep the definition in a file, or give its text to crossfarm.parse",
    )
