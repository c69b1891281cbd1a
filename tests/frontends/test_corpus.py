"""Programs as two generations of TVM print them mean one module, which prints and reads back exactly."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from crossfarm.frontends import load
from crossfarm.ir.verify import verify
from tests.conftest import CORPUS
from tests.frontends.helpers import round_trips, same

NAMES = sorted(p.name.removesuffix(".old.py") for p in CORPUS.glob("*.old.py")) or ["absent"]


@pytest.mark.parametrize("name", NAMES)
def test_both_dialects_of_a_printed_program_are_one_module_that_round_trips(corpus: Path, name: str) -> None:
    newer, older = load(corpus / f"{name}.py"), load(corpus / f"{name}.old.py")
    same(newer, older)
    assert round_trips(newer) == round_trips(older)


@pytest.mark.parametrize("name", NAMES)
def test_printed_programs_are_well_formed(corpus: Path, name: str) -> None:
    verify(load(corpus / f"{name}.py"))


def test_the_signature_of_every_printed_program_is_what_its_index_says(corpus: Path) -> None:
    for case in json.loads((corpus / "index.json").read_text()):
        func = load(corpus / f"{case['name']}.py")[case["func"]]
        assert [p.name for p in func.params] == [p["name"] for p in case["params"]]
        assert [p.dtype for p in func.params] == [p["dtype"] for p in case["params"]]
