"""Continuous integration must not be fooled by tests that did not run."""

from __future__ import annotations

from pathlib import Path

import pytest

from tools.refuse_skips import problems

CASE = '<testcase classname="tests.test_a" name="test_b">{}</testcase>'


@pytest.fixture
def report(tmp_path: Path) -> Path:
    return tmp_path / "report.xml"


def write(report: Path, *inside: str) -> str:
    cases = "".join(CASE.format(content) for content in inside)
    report.write_text(f"<testsuites><testsuite>{cases}</testsuite></testsuites>")
    return str(report)


def test_a_run_whose_tests_all_ran_is_accepted(report: Path) -> None:
    assert problems(write(report, "", "")) == []


def test_a_skipped_test_is_named_with_its_reason(report: Path) -> None:
    assert problems(write(report, "", '<skipped type="pytest.skip" message="no emulator"/>')) == [
        "skipped: tests.test_a::test_b: no emulator"
    ]


def test_an_expected_failure_is_not_a_skip(report: Path) -> None:
    assert problems(write(report, '<skipped type="pytest.xfail" message="known"/>')) == []


def test_a_run_without_tests_is_refused(report: Path) -> None:
    assert problems(write(report)) == ["no test ran"]
