"""Where each temporary lives: on the stack, or in the workspace that the caller lends."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, ClassVar

from compiler_service.passes.base import map_functions
from crossfarm.ir import dtype as dt
from crossfarm.ir.expr import Binary, Cast, Expr, IntImm
from crossfarm.ir.function import PrimFunc
from crossfarm.ir.module import IRModule
from crossfarm.ir.stmt import Allocate, Stmt
from crossfarm.ir.visitor import Mutator

if TYPE_CHECKING:
    from crossfarm.target import Target

#: Value of ``Allocate.annotations["place"]`` for the stack; a number is a region of the workspace.
STACK = "stack"
_ATTRIBUTE = "crossfarm.workspace"
_ALIGN = 64


@dataclass(frozen=True)
class Plan:
    """A function's workspace: byte offsets of its regions, and its size in bytes, in the symbols; all int64."""

    offsets: tuple[Expr, ...]
    size: Expr


@dataclass(frozen=True)
class PlanWorkspace:
    """Gives every Allocate a ``place`` annotation and the function the attribute ``crossfarm.workspace``.

    Args:
        stack_bytes: the largest temporary that goes on the stack.
        stack_total: what a function's temporaries may take of the stack together.
    """

    name: ClassVar[str] = "plan_workspace"
    stack_bytes: int = 4096
    stack_total: int = 32768

    def apply(self, module: IRModule, target: Target) -> IRModule:
        return map_functions(module, lambda _, func: self._plan(func))

    def _plan(self, func: PrimFunc) -> PrimFunc:
        placer = _Placer(self)
        body = placer.mutate(func.body)
        if not placer.offsets:
            return func if body is func.body else replace(func, body=body)
        attrs = {**func.attrs, _ATTRIBUTE: (*placer.offsets, placer.size)}
        return replace(func, body=body, attrs=attrs)


def workspace_plan(func: PrimFunc) -> Plan:
    """The plan that PlanWorkspace wrote down; an empty one for a function without temporaries."""
    entries = func.attrs.get(_ATTRIBUTE, (IntImm(0, "int64"),))
    assert isinstance(entries, tuple)
    exprs = tuple(e for e in entries if isinstance(e, Expr))
    return Plan(exprs[:-1], exprs[-1])


class _Placer(Mutator):
    def __init__(self, options: PlanWorkspace) -> None:
        self.options = options
        self.stack_left = options.stack_total
        self.offsets: list[Expr] = []
        self.size: Expr = IntImm(0, "int64")

    def mutate_Allocate(self, node: Allocate) -> Stmt:
        size = _bytes(node)
        if isinstance(size, IntImm) and size.value <= min(self.options.stack_bytes, self.stack_left):
            self.stack_left -= size.value
            place: str | int = STACK
        else:
            place = len(self.offsets)
            self.offsets.append(self.size)
            self.size = _add(self.size, _round_up(size))
        return replace(node, body=self.mutate(node.body), annotations={**node.annotations, "place": place})


def _bytes(node: Allocate) -> Expr:
    size: Expr = IntImm(dt.itemsize(node.buffer.dtype), "int64")
    for extent in node.buffer.shape:
        if isinstance(size, IntImm) and isinstance(extent, IntImm):
            size = IntImm(size.value * extent.value, "int64")
        else:
            size = Binary("mul", size, extent if extent.dtype == "int64" else Cast(extent, "int64"))
    return size


def _round_up(size: Expr) -> Expr:
    if isinstance(size, IntImm):
        return IntImm(-(-size.value // _ALIGN) * _ALIGN, "int64")
    align = IntImm(_ALIGN, "int64")
    blocks = Binary("floordiv", Binary("add", size, IntImm(_ALIGN - 1, "int64")), align)
    return Binary("mul", blocks, align)


def _add(a: Expr, b: Expr) -> Expr:
    if isinstance(a, IntImm) and isinstance(b, IntImm):
        return IntImm(a.value + b.value, "int64")
    return b if isinstance(a, IntImm) and a.value == 0 else Binary("add", a, b)
