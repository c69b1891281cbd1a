"""The comparison's arithmetic: which side is ahead, and whether a goal is met."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks.report import BEGIN, END, Goal, Row, Samples, markdown, update_document


def test_a_shorter_time_is_ahead_and_a_higher_rate_too() -> None:
    time = Row("lease", "s", ours=Samples([0.01]), peer=Samples([0.05]))
    rate = Row("up", "MB/s", ours=Samples([1000]), peer=Samples([200]))
    assert time.advantage(time.peer) == pytest.approx(5)
    assert rate.advantage(rate.peer) == pytest.approx(5)


def test_medians_are_compared_so_that_one_outlier_changes_nothing() -> None:
    row = Row("call", "s", ours=Samples([1, 1, 100]), peer=Samples([2, 2, 2]))
    assert row.advantage(row.peer) == 2


@pytest.mark.parametrize(
    ("row", "met"),
    [
        (Row("t", "s", Samples([0.014]), goal=Goal(0.015)), True),
        (Row("t", "s", Samples([0.016]), goal=Goal(0.015)), False),
        (Row("r", "MB/s", Samples([70]), floor=Samples([100]), goal=Goal(0.7, of_floor=True)), True),
        (Row("r", "MB/s", Samples([69]), floor=Samples([100]), goal=Goal(0.7, of_floor=True)), False),
        (Row("r", "MB/s", Samples([69]), goal=Goal(0.7, of_floor=True)), None),
        (Row("t", "s", Samples([1])), None),
    ],
)
def test_a_goal_is_met_in_the_direction_of_its_unit(row: Row, met: bool | None) -> None:
    assert row.met is met


def test_the_table_shows_sides_that_were_not_measured_as_such() -> None:
    table = markdown([Row("lease", "s", Samples([0.0123]), peer=Samples([0.05]), goal=Goal(0.015))])
    assert [cell.strip() for cell in table.splitlines()[2].strip("|").split("|")] == [
        "lease", "12.3 ms", "50 ms", "–", "4.07", "", "≤ 15 ms", "yes",
    ]  # fmt: skip


def test_a_document_gets_the_new_table_between_its_markers_only(tmp_path: Path) -> None:
    document = tmp_path / "performance.md"
    begin, end = BEGIN.format(""), END.format("")
    document.write_text(f"before\n{begin}\nold\n{end}\nafter\n")
    update_document(document, "new\n")
    assert document.read_text() == f"before\n{begin}\n\nnew\n\n{end}\nafter\n"


def test_each_part_of_a_document_has_markers_of_its_own(tmp_path: Path) -> None:
    document = tmp_path / "performance.md"
    other, code = ([marker.format(part) for marker in (BEGIN, END)] for part in ("", " code"))
    document.write_text(f"{other[0]}\nkept\n{other[1]}\n{code[0]}\nold\n{code[1]}\n")
    update_document(document, "new\n", "code")
    assert document.read_text() == f"{other[0]}\nkept\n{other[1]}\n{code[0]}\n\nnew\n\n{code[1]}\n"


def test_a_document_without_markers_is_left_alone(tmp_path: Path) -> None:
    document = tmp_path / "performance.md"
    document.write_text("before\n")
    with pytest.raises(ValueError, match="measured"):
        update_document(document, "new")
    assert document.read_text() == "before\n"
