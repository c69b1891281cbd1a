"""What a schedule knows about a program: relatives of blocks, kinds of blocks, bindings."""

from __future__ import annotations

import pytest

from crossfarm.errors import ScheduleError
from crossfarm.ir.schedule import dependencies
from crossfarm.ir.schedule.tree import find_block, rename_duplicate_blocks, replace_stmt
from tests.schedule.programs import CHAIN, MATMUL, schedule


def test_relatives_of_a_block_follow_its_buffers() -> None:
    sch = schedule(CHAIN)
    b, c, d = (sch.get_block(name) for name in "BCD")
    assert sch.get_producers(d) == (b, c)
    assert sch.get_consumers(b) == (c, d)
    assert sch.get_child_blocks(sch.get_block("root")) == (b, c, d)
    assert sch.get_output_blocks(sch.get_block("root")) == (d,)


def test_a_block_that_is_not_there_is_refused_with_those_that_are() -> None:
    with pytest.raises(ScheduleError, match="no block 'X'; there are: root, B, C, D"):
        schedule(CHAIN).get_block("X")


def test_a_reduction_is_a_reduction_block_and_not_complete() -> None:
    func = schedule(MATMUL).module["main"]
    block = find_block(func, "C")
    assert dependencies.is_reduction_block(func, block)
    assert not dependencies.is_complete_block(func, block)
    with pytest.raises(ScheduleError, match=r"(?s)not complete: its axis v_k is reduce.*T.block\(\"C\"\)"):
        dependencies.require_complete(func, block, "compute_inline")


def test_blocks_of_one_name_get_names_of_their_own() -> None:
    twice = schedule(CHAIN.replace('"C")', '"B")')).module["main"]
    assert rename_duplicate_blocks(twice) is twice
    assert find_block(twice, "B_1").block.writes[0].buffer.name == "C"


def test_replacing_shares_what_did_not_change() -> None:
    func = schedule(CHAIN).module["main"]
    b, d = find_block(func, "B"), find_block(func, "D")
    changed = replace_stmt(func, d, find_block(schedule(CHAIN).module["main"], "D"))
    assert find_block(changed, "B") is b
    assert find_block(changed, "D") is not d
