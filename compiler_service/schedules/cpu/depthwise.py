"""Depthwise convolutions: one small filter a channel, by rows of pixels."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from compiler_service.schedules.base import Fit, Refusal, Site
from compiler_service.schedules.convolution import Convolution, convolution_of
from compiler_service.schedules.cpu.sliding import MOST_STEPS, Windows, slide
from compiler_service.schedules.epilogue import epilogue_of
from compiler_service.schedules.padding import padding_before
from crossfarm.ir import dtype as dt
from crossfarm.ir.schedule.dependencies import consumers
from crossfarm.ir.schedule.tree import find_block


@dataclass(frozen=True)
class Depthwise:
    """Depthwise convolution by rows of pixels."""

    name: ClassVar[str] = "depthwise"

    def match(self, site: Site) -> Fit | Refusal:
        found = convolution_of(find_block(site.func, site.block).block)
        if isinstance(found, str):
            return Refusal(found)
        if found.group != 1:
            return Refusal("several filters see one channel, or one filter several")
        if not dt.is_float(found.result.dtype) and not dt.is_int(found.result.dtype):
            return Refusal(f"sums of {found.result.dtype} are not vectors")
        windows = _windows(found)
        if windows.steps is None or windows.steps > MOST_STEPS:
            return Refusal(f"its window is of symbolic size, or larger than {MOST_STEPS}")
        epilogue = epilogue_of(site.func, site.block, site.open_blocks)
        rows, lanes = windows.tile(site)
        along = f", with {', '.join(epilogue)} on each tile" if epilogue else ""
        reason = f"one filter a channel: {rows} rows of {lanes} pixels at a time{along}"
        return Fit((site.block, *epilogue, *padding_before(site, found.data.buffer)), reason)

    def apply(self, site: Site, fit: Fit) -> None:
        sch = site.schedule
        found = convolution_of(find_block(site.func, site.block).block)
        assert isinstance(found, Convolution)
        own = (find_block(site.func, site.block),)
        pads = padding_before(site, found.data.buffer)
        pads = tuple(pad for pad in pads if consumers(site.func, find_block(site.func, pad)) == own)
        channels = slide(site, _windows(found), pads, epilogue_of(site.func, site.block, site.open_blocks))
        sch.parallel(sch.fuse(*channels) if len(channels) > 1 else channels[0])


def _windows(found: Convolution) -> Windows:
    return Windows(found.block, (*found.outer, found.channel), (), found.rows, found.columns, found.sums)
