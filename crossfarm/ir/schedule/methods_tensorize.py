"""The schedule's methods of the tensorize family: blockize and tensorize."""

from __future__ import annotations

from crossfarm.ir.schedule.base import ScheduleBase


class TensorizeMethods(ScheduleBase):
    """Primitives of the tensorize family."""
