"""The benchmark beside cuBLAS, as far as it goes without a GPU: its programs build, and a library is looked for."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks.cpu.works import Work, matmul, memory_bound
from benchmarks.cuda import cublas
from compiler_service.build import build_variant
from crossfarm.frontends.tvmscript import parse
from crossfarm.target import Target
from crossfarm.wire.v1 import compiler_pb2


@pytest.mark.parametrize("work", [matmul("2048", 1, 2048, 2048, 2048), *memory_bound(quick=True)], ids=lambda w: w.op)
def test_what_is_measured_keeps_its_values_in_registers(work: Work) -> None:
    built = build_variant(parse(work.program), Target("cuda sm=90"), compiler_pb2.BuildOptions())
    assert b".visible .entry" in built.code
    assert b".local" not in built.code


def test_a_library_that_is_no_library_is_passed_over(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "nvidia" / "cublas" / "lib"
    folder.mkdir(parents=True)
    (folder / "libcublas.so.13").write_text("no library")
    monkeypatch.setattr("sys.path", [str(tmp_path)])
    monkeypatch.setattr(cublas, "_TOOLKITS", ())
    monkeypatch.setattr(cublas, "find_library", lambda name: None)
    assert list(cublas.candidates()) == [folder / "libcublas.so.13"]
    assert cublas.load() is None
