"""Sizes as people write them: ``n * 4``, not ``n * T.int64(4)``. What reads them knows that they are int64."""

from __future__ import annotations

from crossfarm.ir.expr import Binary, Expr, IntImm
from crossfarm.ir.printer_expr import INFIX, ExprPrinter
from crossfarm.ir.printer_names import Names

#: Operators whose second operand may stand as a bare number beside a size: it is read as one of the size's dtype.
_OPERATORS = ("add", "sub", "mul", "floordiv", "floormod")


def size_text(value: Expr) -> str:
    """A dimension on its own, for messages: ``n * 4 + 1``."""
    return SizePrinter(Names()).dim(value)


class SizePrinter(ExprPrinter):
    """Prints expressions where int64 is what numbers are."""

    def dim(self, value: Expr) -> str:
        """A size, index or number; an int64 constant is a bare number."""
        return str(value.value) if isinstance(value, IntImm) and value.dtype == "int64" else self.typed(value)

    def _print_Binary(self, node: Binary) -> tuple[str, int]:
        a, b = node.a, node.b
        if isinstance(b, IntImm) and not isinstance(a, IntImm) and a.dtype == b.dtype and node.op in _OPERATORS:
            symbol, own = INFIX[node.op]
            return f"{self.expr(a, own)} {symbol} {b.value}", own
        return super()._print_Binary(node)
