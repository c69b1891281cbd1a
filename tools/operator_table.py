"""The text of ``docs/operators.md``: every operator of graph functions. ``tools/onnx_coverage.py`` writes it, which
knows what ONNX's operators become."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from crossfarm.ir.graph.operator import REQUIRED, Attribute, Operator
from crossfarm.ir.graph.operators import FAMILIES

DOCUMENT = Path(__file__).resolve().parent.parent / "docs" / "operators.md"
_HEAD = """# Operators of graph functions

`python tools/onnx_coverage.py` writes this file from the table in `crossfarm/ir/graph/operators/`.

In script an operator is `R.` and its name: `R.nn.softmax(x, axis=-1)`. Inputs that end in `?` may be left out, `*`
stands for any number in a tuple. Attributes without a default must be given. The kind says how an operator reads its
inputs, and so what the compiler may fuse it with: `elementwise` and `broadcast` one element each at the same place,
`injective` one element each elsewhere, `reduction` many of one input, `contraction` sums of products, `opaque` is never
fused. The last column has the operators of ONNX that become it, alone or with others, as far as ONNX's node tests show.
"""


def document(converted: Mapping[str, Sequence[str]]) -> str:
    """The document. ``converted``: by operator, the operators of ONNX that become it."""
    parts = [_HEAD]
    for family in FAMILIES:
        title = (family.__doc__ or "").split("\n", 1)[0].rstrip(".").replace("``", "`")
        parts += [f"## {title}", "", "| operator | inputs | attributes | kind | from ONNX |"]
        parts.append("| --- | --- | --- | --- | --- |")
        parts += [_line(row, converted.get(row.name, ())) for row in family.OPERATORS]
        parts.append("")
    return "\n".join(parts)


def without_onnx(text: str) -> str:
    """The document less its last column, which depends on the release of onnx."""
    return "\n".join(line.rsplit(" | ", 1)[0] if line.startswith("| ") else line for line in text.split("\n"))


def _line(row: Operator, converted: Sequence[str]) -> str:
    inputs = ", ".join(f"`{name}`" for name in row.inputs)
    attributes = ", ".join(f"`{_attribute(a)}`" for a in row.attributes)
    return f"| `{row.name}` | {inputs} | {attributes} | {row.kind} | {', '.join(converted)} |"


def _attribute(attribute: Attribute) -> str:
    default = "" if attribute.default is REQUIRED else f" = {attribute.default!r}"
    return f"{attribute.name}: {attribute.kind}{default}"
