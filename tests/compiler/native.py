"""Calls a built library in this process, as a driver would: slots from arguments, status to error."""

from __future__ import annotations

import ctypes
import struct
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from compiler_service.build import BuiltVariant, build_variant
from crossfarm.errors import ProgramError
from crossfarm.ir import dtype as dt
from crossfarm.ir.module import IRModule
from crossfarm.target import Target
from crossfarm.wire.v1 import artifact_pb2, compiler_pb2

Array = np.ndarray[Any, Any]
Parameter = artifact_pb2.Parameter
_PACK = {"float32": "<f", "float64": "<d", "float16": "<e", "bool": "<?"}


def evaluate(expr: artifact_pb2.IndexExpr, symbols: list[int]) -> int:
    """The value of a postfix expression."""
    stack: list[int] = []
    operators = {
        artifact_pb2.IndexExpr.ADD: lambda a, b: a + b,
        artifact_pb2.IndexExpr.SUB: lambda a, b: a - b,
        artifact_pb2.IndexExpr.MUL: lambda a, b: a * b,
        artifact_pb2.IndexExpr.FLOORDIV: lambda a, b: a // b,
        artifact_pb2.IndexExpr.FLOORMOD: lambda a, b: a % b,
        artifact_pb2.IndexExpr.MIN: min,
        artifact_pb2.IndexExpr.MAX: max,
    }
    for op in expr.ops:
        match op.WhichOneof("op"):
            case "constant":
                stack.append(op.constant)
            case "symbol":
                stack.append(symbols[op.symbol])
            case _:
                b, a = stack.pop(), stack.pop()
                stack.append(operators[op.operator](a, b))
    (value,) = stack
    return value


def aligned(size: int) -> Array:
    """That many bytes at a multiple of 64: the workspace of a call. They are not zeros: nobody may rely on that."""
    memory = np.full(size + 64, 0xA5, np.uint8)
    start = -memory.ctypes.data % 64
    return memory[start : start + size]


class Native:
    """A module built for this machine's baseline and loaded."""

    def __init__(self, module: IRModule, target: Target | str = "llvm", **options: Any) -> None:
        self.built: BuiltVariant = build_variant(module, Target(target), compiler_pb2.BuildOptions(**options))
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder, "program.so")
            path.write_bytes(self.built.code)
            self.library = ctypes.CDLL(str(path))
        self.entries = {e.name: e for e in self.built.variant.entry_points}

    def __call__(self, name: str, *args: Any, allocate: Callable[[int], Array] = aligned) -> None:
        """Calls in place, like the interpreter. Raises ProgramError with the message of a nonzero status.

        Args:
            allocate: from a size the workspace, aligned to 64 bytes.
        """
        entry = self.entries[name]
        values, bytes_needed = slots_of(entry, args)
        workspace = allocate(bytes_needed)
        slots = [v.ctypes.data if isinstance(v, np.ndarray) else v for v in values]
        function = self.library[entry.native.symbol]
        function.restype = ctypes.c_int32
        function.argtypes = [ctypes.c_void_p, ctypes.c_void_p]
        status = function(workspace.ctypes.data, (ctypes.c_uint64 * max(len(slots), 1))(*slots))
        if status:
            raise ProgramError(entry.failures[status - 1])


def slots_of(entry: artifact_pb2.EntryPoint, args: tuple[Any, ...]) -> tuple[list[Array | int], int]:
    """What a call's slots hold, a buffer as its array and a scalar as its bits; and the bytes of its workspace."""
    symbols: dict[int, int] = {}
    slots: list[Array | int] = []
    for parameter, arg in zip(entry.parameters, args, strict=True):
        if parameter.kind == Parameter.SCALAR:
            slots.append(_bits(parameter.dtype, arg))
            if parameter.name in entry.symbols:
                symbols.setdefault(list(entry.symbols).index(parameter.name), arg)
            continue
        assert arg.dtype == dt.to_numpy(parameter.dtype), (parameter.name, arg.dtype)
        for extent, size in zip(parameter.shape, arg.shape, strict=True):
            if len(extent.ops) == 1 and extent.ops[0].WhichOneof("op") == "symbol":
                symbols.setdefault(extent.ops[0].symbol, size)
        slots.append(arg)
    sizes = [symbols[i] for i in range(len(entry.symbols))]
    slots.extend(s & (1 << 64) - 1 for s in sizes)
    return slots, evaluate(entry.native.workspace_bytes, sizes)


def _bits(dtype: str, value: Any) -> int:
    if dtype == "bfloat16":
        return int(np.asarray(value, dt.to_numpy(dtype)).view(np.uint16))
    if dtype in _PACK:
        return int.from_bytes(struct.pack(_PACK[dtype], value), "little")
    return int(value) & (1 << 64) - 1
