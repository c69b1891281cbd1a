"""Rules for CPUs: vectors, registers, caches, and threads along outer loops."""

from __future__ import annotations

from compiler_service.schedules.base import Rule
from compiler_service.schedules.cpu.columns import Columns, Whole
from compiler_service.schedules.cpu.conv2d import Conv2d
from compiler_service.schedules.cpu.depthwise import Depthwise
from compiler_service.schedules.cpu.elementwise import Elementwise
from compiler_service.schedules.cpu.fallback import Fallback
from compiler_service.schedules.cpu.matmul import Matmul
from compiler_service.schedules.cpu.matmul_int8 import MatmulInt8
from compiler_service.schedules.cpu.pooling import Pooling
from compiler_service.schedules.cpu.rows import Rows
from compiler_service.schedules.cpu.skinny import DotProducts, SkinnyMatmul
from compiler_service.schedules.cpu.transpose import Transpose

#: A block goes to the first that fits.
RULES: tuple[Rule, ...] = (
    Depthwise(),
    Conv2d(),
    SkinnyMatmul(),
    DotProducts(),
    MatmulInt8(),
    Matmul(),
    Pooling(),
    Rows(),
    Columns(),
    Whole(),
    Transpose(),
    Elementwise(),
    Fallback(),
)
