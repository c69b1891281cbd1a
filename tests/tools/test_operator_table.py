"""The document of operators says what the table says, whatever release of onnx is here, or none."""

from __future__ import annotations

from tools import operator_table


def test_the_document_has_every_operator_as_it_is() -> None:
    written = operator_table.without_onnx(operator_table.DOCUMENT.read_text())
    there = operator_table.without_onnx(operator_table.document({}))
    assert written == there, "write it anew: python tools/onnx_coverage.py"
