"""Writing one SPIR-V function: values, blocks, structured branches and loops, local variables."""

from __future__ import annotations

import struct
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from compiler_service.codegen import spirv_opcodes as spv
from compiler_service.codegen.spirv_opcodes import Decoration, Glsl, Op, Storage
from compiler_service.codegen.spirv_types import Types
from compiler_service.codegen.spirv_words import Words
from crossfarm.ir import dtype as dt


@dataclass(frozen=True, eq=False)
class Value:
    """An SSA value of a scalar dtype.

    Attributes:
        number: its value, of a constant.
        factors: of a float product, which may be rounded once with a sum that it goes into.
    """

    id: int
    dtype: str
    number: int | float | None = None
    factors: tuple[Value, Value] | None = None


class Code:
    """A function that is being written.

    Attributes:
        types: of its module.
        result: dtype of what it gives; "" for nothing.
        parameters: its arguments.
        block: label of the current block.
        terminated: true where the current block has its end, and what follows is never reached.
    """

    def __init__(self, types: Types, name: str, result: str = "", parameters: Sequence[str] = ()) -> None:
        self.types, self.module = types, types.module
        self.id = self.module.new_id()
        self.module.name(self.id, name)
        result_type = types.register(result) if result else self.module.type_id(Op.TYPE_VOID)
        parameter_types = [types.register(p) for p in parameters]
        signature = self.module.type_id(Op.TYPE_FUNCTION, result_type, *parameter_types)
        self._head, self._variables, self._body = Words(), Words(), Words()
        self._head.add(Op.FUNCTION, result_type, self.id, spv.NO_CONTROL, signature)
        self.parameters = [Value(self.module.new_id(), dtype) for dtype in parameters]
        for parameter, type_id in zip(self.parameters, parameter_types):
            self._head.add(Op.FUNCTION_PARAMETER, type_id, parameter.id)
        self.block = self.label()
        self._head.add(Op.LABEL, self.block)
        self.terminated = False

    def finish(self) -> None:
        """Ends the function, which returns where it has not, and adds it to its module."""
        if not self.terminated:
            self.do(Op.RETURN)
        self._body.add(Op.FUNCTION_END)
        for part in (self._variables, self._body):
            self._head.words.extend(part.words)
        self.module.function(self._head)

    # --- instructions

    def do(self, op: Op, *operands: int) -> None:
        """An instruction without a result."""
        self._body.add(op, *operands)

    def typed(self, op: Op, type_id: int, *operands: int) -> int:
        """The id of an instruction's result of that type."""
        result = self.module.new_id()
        self._body.add(op, type_id, result, *operands)
        return result

    def value(self, op: Op, dtype: str, *operands: Value) -> Value:
        """The result of an instruction on values."""
        return Value(self.typed(op, self.types.register(dtype), *(o.id for o in operands)), dtype)

    def exact(self, op: Op, dtype: str, *operands: Value) -> Value:
        """A float's arithmetic, not to be combined or reordered with other instructions."""
        result = self.value(op, dtype, *operands)
        self.module.decorate(result.id, Decoration.NO_CONTRACTION)
        return result

    def glsl(self, instruction: Glsl, dtype: str, *operands: Value) -> Value:
        """The result of an instruction of GLSL.std.450."""
        ids = (o.id for o in operands)
        type_id = self.types.register(dtype)
        return Value(self.typed(Op.EXT_INST, type_id, self.module.glsl, instruction, *ids), dtype)

    def constant(self, dtype: str, number: int | float) -> Value:
        """``number``, which fits an integer dtype, and is rounded to a float one."""
        type_id = self.types.register(dtype)
        if dtype == "bool":
            constant = self.module.constant(Op.CONSTANT_TRUE if number else Op.CONSTANT_FALSE, type_id)
            return Value(constant, dtype, int(bool(number)))
        bits = _float_bits(dtype, float(number)) if dt.is_float(dtype) else int(number)
        words = (bits & 0xFFFFFFFF, bits >> 32 & 0xFFFFFFFF)
        wide = dt.bits(dtype) == 64
        return Value(self.module.constant(Op.CONSTANT, type_id, *words[: 2 if wide else 1]), dtype, number)

    # --- blocks

    def label(self) -> int:
        """A block's name, for ``open``."""
        return self.module.new_id()

    def open(self, label: int) -> None:
        """Goes on in a new block. The one before has its end."""
        self._body.add(Op.LABEL, label)
        self.block, self.terminated = label, False

    def jump(self, label: int) -> None:
        """Ends the block, if it has no end yet."""
        if not self.terminated:
            self.do(Op.BRANCH, label)
        self.terminated = True

    def leave(self, *result: Value) -> None:
        """Returns."""
        if not self.terminated:
            self.do(Op.RETURN_VALUE if result else Op.RETURN, *(r.id for r in result))
        self.terminated = True

    def choose(self, condition: Value, then: Callable[[], None], otherwise: Callable[[], None] | None = None) -> None:
        """Runs the code that ``then`` writes where the condition holds, and elsewhere that of ``otherwise``."""
        first, end = self.label(), self.label()
        second = self.label() if otherwise is not None else end
        self.do(Op.SELECTION_MERGE, end, spv.NO_CONTROL)
        self.do(Op.BRANCH_CONDITIONAL, condition.id, first, second)
        self.open(first)
        then()
        self.jump(end)
        if otherwise is not None:
            self.open(second)
            otherwise()
            self.jump(end)
        self.open(end)

    def chosen(self, condition: Value, then: Callable[[], Value], otherwise: Callable[[], Value]) -> Value:
        """One of two values, of which only that one is computed."""
        return self.all_chosen(condition, lambda: (then(),), lambda: (otherwise(),))[0]

    def all_chosen(
        self, condition: Value, then: Callable[[], Sequence[Value]], otherwise: Callable[[], Sequence[Value]]
    ) -> list[Value]:
        """The values that one of two pieces of code gives."""
        arms: list[tuple[Sequence[Value], int]] = []

        def arm(make: Callable[[], Sequence[Value]]) -> Callable[[], None]:
            def write() -> None:
                values = make()
                arms.append((values, self.block))

            return write

        self.choose(condition, arm(then), arm(otherwise))
        (first, first_block), (second, second_block) = arms
        return [
            Value(self.typed(Op.PHI, self.types.register(a.dtype), a.id, first_block, b.id, second_block), a.dtype)
            for a, b in zip(first, second)
        ]

    def loop(
        self,
        start: Sequence[Value],
        test: Callable[[Sequence[Value]], Value],
        body: Callable[[Sequence[Value]], None],
        step: Callable[[Sequence[Value]], Sequence[Value]],
        *,
        unroll: bool = False,
    ) -> list[Value]:
        """Runs the body's code while the test holds.

        Args:
            start: what the variables are at first.
            test: a bool from the variables.
            step: what the variables are next.

        Returns:
            the variables at the end.
        """
        head, tested, inside, latch, end = (self.label() for _ in range(5))
        before = self.block
        self.jump(head)
        self.open(head)
        variables = [Value(self.label(), v.dtype) for v in start]
        following = [self.label() for _ in start]
        for variable, first, after in zip(variables, start, following):
            type_id = self.types.register(variable.dtype)
            self.do(Op.PHI, type_id, variable.id, first.id, before, after, latch)
        self.do(Op.LOOP_MERGE, end, latch, spv.LOOP_UNROLL if unroll else spv.NO_CONTROL)
        self.jump(tested)
        self.open(tested)
        self.do(Op.BRANCH_CONDITIONAL, test(variables).id, inside, end)
        self.open(inside)
        body(variables)
        self.jump(latch)
        self.open(latch)
        for value, after in zip(step(variables), following):
            # the name that the phi has for it: a copy, which costs nothing
            type_id = self.types.register(value.dtype)
            self.do(Op.COPY_OBJECT, type_id, after, value.id)
        self.jump(head)
        self.open(end)
        return variables

    # --- memory

    def local(self, type_id: int, name: str = "") -> int:
        """A variable of the function."""
        variable = self.module.new_id()
        pointer = self.module.pointer(Storage.FUNCTION, type_id)
        self._variables.add(Op.VARIABLE, pointer, variable, Storage.FUNCTION)
        if name:
            self.module.name(variable, name)
        return variable

    def element(self, base: int, storage: Storage, type_id: int, *indices: int) -> int:
        """A pointer to a part of a variable."""
        return self.typed(Op.ACCESS_CHAIN, self.module.pointer(storage, type_id), base, *indices)


def _float_bits(dtype: str, value: float) -> int:
    with np.errstate(all="ignore"):
        if dtype == "float64":
            return int.from_bytes(struct.pack("<d", value), "little")
        if dtype == "float16":
            return int.from_bytes(np.float16(value).tobytes(), "little")
        bits = int.from_bytes(np.float32(value).tobytes(), "little")
    if dtype == "float32" or value != value:
        return bits
    return _round_bfloat16(value)


def _round_bfloat16(value: float) -> int:
    """The bits of the float32 that is ``value`` rounded once to bfloat16's 8 digits, ties to even."""
    with np.errstate(all="ignore"):
        near = np.float32(value)
        if float(near) != value and int(near.view(np.uint32)) & 1 == 0:  # to odd, so that what follows rounds once
            near = np.nextafter(near, np.float32(np.copysign(np.inf, value - float(near))))
    bits = int(near.view(np.uint32))
    return (bits + 0x7FFF + (bits >> 16 & 1)) & 0xFFFF0000
