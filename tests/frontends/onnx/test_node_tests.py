"""ONNX's own node tests: those that passed still do, and the documents say what is so."""

from __future__ import annotations

import onnx

from tools import onnx_coverage, operator_table


def test_what_passed_passes_and_the_documents_say_so() -> None:
    listed = onnx_coverage.PASSING.read_text()
    found = onnx_coverage.outcomes()
    names = [line.split(" ")[0] for line in listed.splitlines()]
    broken = {name: found[name].problem for name in names if name in found and found[name].problem}
    assert not broken
    text = onnx_coverage.DOCUMENT.read_text()
    if f"onnx {onnx.__version__}," in text:  # another onnx has other tests
        assert onnx_coverage.passing(found) == listed, "write it anew: python tools/onnx_coverage.py"
        assert onnx_coverage.document(text, found) == text, "write it anew: python tools/onnx_coverage.py"
        table = operator_table.document(onnx_coverage.converted(found))
        assert operator_table.DOCUMENT.read_text() == table, "write it anew: python tools/onnx_coverage.py"
