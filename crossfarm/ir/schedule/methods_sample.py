"""The schedule's methods of the sample family: decisions."""

from __future__ import annotations

from crossfarm.ir.schedule.base import ScheduleBase


class SampleMethods(ScheduleBase):
    """Primitives of the sample family."""
