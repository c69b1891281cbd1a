"""Rules for GPUs: groups of threads, tiles in the memory that a group shares, and in registers."""

from __future__ import annotations

from compiler_service.schedules.base import Rule
from compiler_service.schedules.gpu.columns import Columns, Whole
from compiler_service.schedules.gpu.conv2d import Conv2d
from compiler_service.schedules.gpu.elementwise import Elementwise
from compiler_service.schedules.gpu.fallback import Fallback, PerResult
from compiler_service.schedules.gpu.matmul import Matmul
from compiler_service.schedules.gpu.rows import Rows
from compiler_service.schedules.gpu.transpose import Transpose
from compiler_service.schedules.gpu.windows import Windows

#: A block goes to the first that fits.
RULES: tuple[Rule, ...] = (
    Matmul(),
    Conv2d(),
    Windows(),
    Rows(),
    Columns(),
    Whole(),
    Transpose(),
    Elementwise(),
    PerResult(),
    Fallback(),
)
