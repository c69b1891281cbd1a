"""The schedule's methods of the layout family: cache_read, cache_write, reindex, transform_layout, pad_einsum."""

from __future__ import annotations

from crossfarm.ir.schedule.base import ScheduleBase


class LayoutMethods(ScheduleBase):
    """Primitives of the layout family."""
