"""The schedule's methods of the location family: compute_at, inlining and reductions."""

from __future__ import annotations

from crossfarm.ir.schedule.base import ScheduleBase


class LocationMethods(ScheduleBase):
    """Primitives of the location family."""
