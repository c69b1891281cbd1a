"""Shared by the frontend's tests: wrapping one line of script into a program, and what exact round trip means."""

from __future__ import annotations

import textwrap

from crossfarm.frontends.tvmscript import parse
from crossfarm.ir.expr import Expr
from crossfarm.ir.function import PrimFunc
from crossfarm.ir.module import IRModule
from crossfarm.ir.printer import print_module
from crossfarm.ir.stmt import BufferStore
from crossfarm.ir.structural import explain_difference
from crossfarm.ir.visitor import walk

#: Buffers and scalars of every kind, for expressions to talk about.
PROGRAM = """\
@T.prim_func
def main(
    A: T.Buffer((16, 16), "float32"), B: T.Buffer((16, 16), "int32"), C: T.Buffer((16,), "int64"),
    D: T.Buffer((16,), "float64"), E: T.Buffer((16,), "bool"), H: T.Buffer((16,), "float16"),
    U: T.Buffer((16,), "uint8"), Z: T.Buffer((), "float32"), I8: T.Buffer((16,), "int8"),
    n: T.int32, m: T.int64, x: T.float32, p: T.bool,
):
    for i, j in T.grid(16, 16):
        T.evaluate(p)
{body}
"""


def program(body: str) -> str:
    """A whole script around the statements of a loop over i and j."""
    return PROGRAM.format(body=textwrap.indent(textwrap.dedent(body).strip("\n"), " " * 8))


def function(body: str) -> PrimFunc:
    """The function of ``program``."""
    return parse(program(body))["main"]


def body_of(text: str) -> str:
    """The statements that ``program`` was given, out of the printed text."""
    inside = text.split("T.evaluate(p)\n", 1)[1]
    return "\n".join(line[12:] for line in inside.splitlines())


def expression(text: str, buffer: str = "D") -> Expr:
    """An expression as the parser reads it, seen as the value stored (and cast, where it must be)."""
    store = next(s for s in walk(function(f"{buffer}[0] = {text}").body) if isinstance(s, BufferStore))
    return store.value


def same(a: IRModule, b: IRModule) -> None:
    """Fails with the difference unless the modules are structurally equal."""
    assert explain_difference(a, b) is None


def round_trips(module: IRModule) -> str:
    """Checks the promise of the printer; gives the text."""
    text = print_module(module)
    again = parse(text)
    assert explain_difference(module, again) is None, text
    assert print_module(again) == text
    return text
