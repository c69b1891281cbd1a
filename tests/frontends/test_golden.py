"""Printed text as people see it, kept in files that ``pytest tests/frontends --update-golden`` rewrites.

Reading a golden and printing it must give the file again, so the goldens also document the canonical dialect. They are
``.txt``: formatters of Python leave them alone.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from crossfarm.frontends.tvmscript import parse
from crossfarm.ir.printer import print_module
from crossfarm.ir.verify import verify
from tests.frontends.helpers import same

GOLDEN = Path(__file__).parent / "golden"
NAMES = sorted(path.stem for path in GOLDEN.glob("*.txt"))


@pytest.mark.parametrize("name", NAMES)
def test_a_program_prints_as_its_golden_says(name: str, update_golden: bool) -> None:
    path = GOLDEN / f"{name}.txt"
    module = parse(path.read_text(), str(path))
    printed = print_module(module)
    if update_golden:
        path.write_text(printed)
    assert printed == path.read_text(), "run with --update-golden if this change of the printed text is meant"
    same(parse(printed), module)
    verify(module)


def test_there_are_goldens() -> None:
    assert {"matmul", "lowered", "symbolic", "graph"} <= set(NAMES)
