"""Sizes: integer expressions of a call's symbolic sizes (``IndexExpr`` of artifact.proto): made, checked, evaluated."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from crossfarm.wire.v1.artifact_pb2 import IndexExpr

MAX_OPS = 1024

_APPLY: dict[int, Callable[[int, int], int]] = {
    IndexExpr.ADD: lambda a, b: a + b,
    IndexExpr.SUB: lambda a, b: a - b,
    IndexExpr.MUL: lambda a, b: a * b,
    IndexExpr.FLOORDIV: lambda a, b: a // b,
    IndexExpr.FLOORMOD: lambda a, b: a % b,
    IndexExpr.MIN: min,
    IndexExpr.MAX: max,
}
_SHOWN: dict[int, str] = {
    IndexExpr.ADD: "({} + {})",
    IndexExpr.SUB: "({} - {})",
    IndexExpr.MUL: "({} * {})",
    IndexExpr.FLOORDIV: "({} // {})",
    IndexExpr.FLOORMOD: "({} % {})",
    IndexExpr.MIN: "min({}, {})",
    IndexExpr.MAX: "max({}, {})",
}
_CONSTANT, _SYMBOL, _OPERATOR = range(3)


def expression(value: int | str | tuple[Any, ...], symbols: Mapping[str, int]) -> IndexExpr:
    """An IndexExpr from nested tuples, as ``("ADD", "n", 3)``; a string is a symbol of ``symbols`` (name → index)."""
    message = IndexExpr()

    def emit(node: int | str | tuple[Any, ...]) -> None:
        if isinstance(node, tuple):
            operator, a, b = node
            emit(a)
            emit(b)
            message.ops.add(operator=IndexExpr.Operator.Value(operator))
        elif isinstance(node, str):
            message.ops.add(symbol=symbols[node])
        else:
            message.ops.add(constant=node)

    emit(value)
    return message


class Size:
    """A checked expression, ready to evaluate.

    Args:
        expr: the message, from outside.
        symbols: how many symbols there are.

    Attributes:
        symbol: the symbol's index where the expression is that bare symbol, else -1.

    Raises:
        ValueError: the expression is malformed.
    """

    __slots__ = ("_ops", "symbol")

    def __init__(self, expr: IndexExpr, symbols: int) -> None:
        if len(expr.ops) > MAX_OPS:
            raise ValueError(f"more than {MAX_OPS} operations")
        ops: list[tuple[int, int]] = []
        depth = 0
        for op in expr.ops:
            which = op.WhichOneof("op")
            if which == "constant":
                ops.append((_CONSTANT, op.constant))
                depth += 1
            elif which == "symbol" and op.symbol < symbols:
                ops.append((_SYMBOL, op.symbol))
                depth += 1
            elif which == "operator" and op.operator in _APPLY and depth >= 2:
                ops.append((_OPERATOR, op.operator))
                depth -= 1
            else:
                raise ValueError(f"operation {len(ops)} is unknown or misplaced")
        if depth != 1:
            raise ValueError(f"it leaves {depth} values")
        self._ops = tuple(ops)
        self.symbol = ops[0][1] if len(ops) == 1 and ops[0][0] == _SYMBOL else -1

    def evaluate(self, symbols: Sequence[int]) -> int:
        """The value. Raises ZeroDivisionError."""
        stack: list[int] = []
        for what, value in self._ops:
            if what == _OPERATOR:
                b = stack.pop()
                stack.append(_APPLY[value](stack.pop(), b))
            else:
                stack.append(symbols[value] if what == _SYMBOL else value)
        return stack[0]

    def text(self, names: Sequence[str]) -> str:
        """The expression as people write it."""
        stack: list[str] = []
        for what, value in self._ops:
            if what == _OPERATOR:
                b = stack.pop()
                stack.append(_SHOWN[value].format(stack.pop(), b))
            else:
                stack.append(names[value] if what == _SYMBOL else str(value))
        outermost = self._ops[-1][0] == _OPERATOR and stack[0].startswith("(")
        return stack[0][1:-1] if outermost else stack[0]
