"""The schedule's methods of the marks family: how loops run, annotations and scopes."""

from __future__ import annotations

from crossfarm.ir.schedule.base import ScheduleBase


class MarkMethods(ScheduleBase):
    """Primitives of the marks family."""
