"""Rules for GPUs: groups of threads, tiles in the memory that a group shares, and in registers."""

from __future__ import annotations

from compiler_service.schedules.base import Rule

#: A block goes to the first that fits.
RULES: tuple[Rule, ...] = ()
