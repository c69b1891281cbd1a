"""`make check-cuda` on a machine that lacks something: it says what, before it begins."""

from __future__ import annotations

from pathlib import Path

import pytest

from tools import check_cuda


def test_packages_that_are_missing_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(check_cuda, "has_module", lambda name: name not in ("pycuda", "grpc_health"))
    said = check_cuda.missing_packages()
    assert "has no grpcio-health-checking, pycuda" in said
    assert "make check-cuda PYTHON=" in said
    assert "nvcc" in said
    monkeypatch.setattr(check_cuda, "has_module", lambda name: True)
    assert check_cuda.missing_packages() == ""


def test_every_package_that_is_asked_for_is_known_by_its_module() -> None:
    assert [module for module in check_cuda.NEEDED if not check_cuda.has_module(module)] in ([], ["pycuda"])


def test_stubs_that_are_there_are_used_where_none_can_be_made(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(check_cuda, "has_module", lambda name: False)
    assert check_cuda.missing_stubs() == ""
    monkeypatch.setattr(check_cuda, "STUBS", tmp_path / "artifact_pb2.py")
    assert "make proto" in check_cuda.missing_stubs()
