"""Printed text as people see it, kept in files: ``pytest tests/frontends/test_golden.py --update-golden`` rewrites them.

A golden is a program in the canonical dialect that says in a comment-free file what printing it gives: reading it and
printing it must give the file again. So the goldens also document the dialect.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from crossfarm.frontends import load
from crossfarm.ir.printer import print_module
from crossfarm.ir.verify import verify
from tests.frontends.helpers import same

GOLDEN = Path(__file__).parent / "golden"
NAMES = sorted(path.stem for path in GOLDEN.glob("*.py"))


@pytest.mark.parametrize("name", NAMES)
def test_a_program_prints_as_its_golden_says(name: str, update_golden: bool) -> None:
    path = GOLDEN / f"{name}.py"
    module = load(path)
    printed = print_module(module)
    if update_golden:
        path.write_text(printed)
    assert printed == path.read_text(), "run with --update-golden if this change of the printed text is meant"
    same(load(path), module)
    verify(module)


def test_there_are_goldens() -> None:
    assert {"matmul", "lowered", "symbolic"} <= set(NAMES)
