"""Loading a file by its suffix."""

from __future__ import annotations

from pathlib import Path

import pytest

from crossfarm.errors import InvalidModule, ScriptError
from crossfarm.frontends import load
from crossfarm.frontends.tvmscript import parse
from tests.frontends.helpers import same

TEXT = '@T.prim_func\ndef f(A: T.Buffer((4,), "int32")):\n    A[0] = 1\n'


def test_a_script_and_a_saved_module_load_alike(tmp_path: Path) -> None:
    (tmp_path / "a.py").write_text(TEXT)
    module = load(tmp_path / "a.py")
    module.save(tmp_path / "a.cfir")
    same(module, load(str(tmp_path / "a.cfir")))
    same(module, parse(TEXT))


def test_a_byte_order_mark_does_not_matter(tmp_path: Path) -> None:
    (tmp_path / "a.py").write_text(TEXT, encoding="utf-8-sig")
    same(load(tmp_path / "a.py"), parse(TEXT))


def test_errors_name_the_file(tmp_path: Path) -> None:
    (tmp_path / "a.py").write_text("import os")
    with pytest.raises(ScriptError) as caught:
        load(tmp_path / "a.py")
    assert caught.value.filename == str(tmp_path / "a.py")


@pytest.mark.parametrize("name", ["model.onyx", "model", "model.txt"])
def test_an_unknown_format_lists_the_known_ones(name: str) -> None:
    with pytest.raises(InvalidModule, match="unknown module format") as caught:
        load(name)
    assert ".py (TVMScript), .cfir (a saved module)" in caught.value.hint


@pytest.mark.parametrize("suffix", [".py", ".cfir"])
def test_a_file_that_cannot_be_read_says_why(tmp_path: Path, suffix: str) -> None:
    with pytest.raises(InvalidModule, match="No such file"):
        load(tmp_path / f"absent{suffix}")
    (tmp_path / f"folder{suffix}").mkdir()
    with pytest.raises(InvalidModule, match="Is a directory"):
        load(tmp_path / f"folder{suffix}")


def test_text_that_is_not_utf8_says_so(tmp_path: Path) -> None:
    (tmp_path / "a.py").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(InvalidModule, match="not UTF-8"):
        load(tmp_path / "a.py")
