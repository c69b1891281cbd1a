"""Weights are laid out once, where an artifact is loaded, not at each call.

A schedule's copy of a parameter in the order that its kernel wants (``packing_stages``) depends on that parameter
alone. Where a graph function gives a constant for it, the copy is a constant too: the stage becomes a private function
``NAME_pack``, which ``main_prepare`` calls, the program takes what that makes, and the constant itself is no parameter
of ``main`` any more unless something else uses it. A program that is called with constants at some places and not at
others is two from then on.

It runs for CPUs. Rules for devices with thread groups copy factors too, but inside a group's loops, into its own
memory: there is nothing to do beforehand.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cache
from typing import TYPE_CHECKING, ClassVar

from compiler_service.passes.graph.lift_constants import CONSTANTS, PREPARE
from compiler_service.passes.graph.lower_graph import NAMES, OUTPUTS
from compiler_service.passes.packing_stages import Packing, Unpacked, packings_of, unpacked
from crossfarm.ir.buffer import Buffer
from crossfarm.ir.calls import CALLS, ProgramCall, address_of, calls_of, is_caller
from crossfarm.ir.expr import IntImm
from crossfarm.ir.function import Param, PrimFunc
from crossfarm.ir.module import AnyFunction, IRModule
from crossfarm.ir.naming import free_name
from crossfarm.ir.schedule.fresh import fresh_function
from crossfarm.ir.schedule.tree import buffers_of
from crossfarm.ir.stmt import Annotations, Block, BlockRealize
from crossfarm.ir.structural import structural_equal, structural_hash
from crossfarm.ir.visitor import seq

if TYPE_CHECKING:
    from crossfarm.target import Target

#: Positions of the parameters of a program that are packed beforehand.
_Positions = tuple[int, ...]


@dataclass(frozen=True)
class LiftPacking:
    """For every function of calls: what its callees copy of constants is prepared beforehand."""

    name: ClassVar[str] = "lift_packing"

    def apply(self, module: IRModule, target: Target) -> IRModule:
        functions = module.prim_funcs
        callers = {name: _Caller.of(func) for name, func in functions.items() if is_caller(func)}
        makers = {text.rpartition(":")[0] for caller in callers.values() for text in caller.texts.values()}
        programs = _Programs(functions)
        chosen = {
            name: [programs.choose(call, {} if name in makers else caller.texts) for call in caller.calls]
            for name, caller in callers.items()
        }
        if not any(map(any, chosen.values())):
            return module
        programs.make()
        made: dict[str, AnyFunction] = {}
        taken = set(module.functions) | set(programs.made)
        for name, func in module.functions.items():
            if name not in chosen or not any(chosen[name]):
                made.setdefault(name, func)
                continue
            prepare = PREPARE.format(name)
            if prepare not in makers or prepare not in callers:
                prepare = free_name(prepare, taken)  # that name may be somebody's own
                taken.add(prepare)
            others = {t for other, c in callers.items() if other != name for t in c.texts.values()}
            preparation = _Preparation(prepare, callers.get(prepare, _Caller()), others)
            made[name] = callers[name].packed(chosen[name], programs, preparation)
            made[prepare] = preparation.maker.function()
        return module.with_functions({**made, **programs.made})


@dataclass
class _Caller:
    """A function of calls, taken apart.

    Attributes:
        texts: its constants, and where they come from.
        names: of its parameters, for people.
        between: its temporaries.
    """

    inputs: list[Param] = field(default_factory=list)
    outputs: list[Buffer] = field(default_factory=list)
    texts: dict[Buffer, str] = field(default_factory=dict)
    names: dict[Param, str] = field(default_factory=dict)
    between: tuple[Buffer, ...] = ()
    calls: list[ProgramCall] = field(default_factory=list)
    attrs: Annotations = field(default_factory=lambda: {CALLS: True})

    @classmethod
    def of(cls, func: PrimFunc) -> _Caller:
        """The parts of ``func``, as ``lower_graph`` made it."""
        texts, names = (func.attrs.get(key, ()) for key in (CONSTANTS, NAMES))
        assert isinstance(texts, tuple)
        assert isinstance(names, tuple)
        assert isinstance(func.body, BlockRealize)
        first = len(func.params) - len(texts)
        inputs = first - int(str(func.attrs[OUTPUTS]))
        return cls(
            inputs=list(func.params[:inputs]),
            outputs=[p for p in func.params[inputs:first] if isinstance(p, Buffer)],
            texts={p: str(t) for p, t in zip(func.params[first:], texts) if isinstance(p, Buffer)},
            names=dict(zip(func.params, map(str, names))),
            between=func.body.block.alloc_buffers,
            calls=calls_of(func),
            attrs=func.attrs,
        )

    def function(self) -> PrimFunc:
        """The parts as a function."""
        params = (*self.inputs, *self.outputs, *self.texts)
        attrs = {**self.attrs, OUTPUTS: len(self.outputs), NAMES: tuple(self.names[p] for p in params)}
        attrs |= {CONSTANTS: tuple(self.texts.values())} if self.texts else {}
        body = seq(*(call.statement() for call in self.calls))
        root = Block("root", (), (), (), body, alloc_buffers=self.between)
        return PrimFunc(params, BlockRealize((), IntImm(1, "bool"), root), attrs)

    def used(self) -> set[Buffer]:
        """What is given to calls."""
        return {buffer for call in self.calls for arg in call.args for buffer in buffers_of(arg)}

    def name(self, buffer: Buffer, label: str) -> None:
        """Calls a new parameter ``label``, or like that."""
        self.names[buffer] = free_name(label, set(self.names.values()))

    def packed(self, chosen: Sequence[_Positions], programs: _Programs, preparation: _Preparation) -> PrimFunc:
        """The function when of each call the parameters at ``chosen`` are packed by the preparation."""
        mine: dict[Buffer, Buffer] = {}  # by output of the preparation

        def parameter(pack: str, packing: Packing, constant: Buffer, origin: str) -> Buffer:
            label = f"{self.names[constant]}_packed"
            output = preparation.packed(pack, packing, constant, self, origin)
            if output not in mine:
                mine[output] = replace(output)
                self.name(mine[output], label)
            return mine[output]

        before = self.used()
        self.calls = [programs.call(call, positions, parameter) for call, positions in zip(self.calls, chosen)]
        gone = before - self.used()
        kept = {buffer: text for buffer, text in self.texts.items() if buffer not in gone}
        numbers = preparation.settle(set(kept.values()))
        self.texts = {buffer: numbers.get(text, text) for buffer, text in kept.items()}
        self.texts |= {own: preparation.text(output) for output, own in mine.items()}
        return self.function()


class _Preparation:
    """What prepares a caller's constants, and packs them.

    Args:
        name: of the function.
        maker: its parts; changed in place.
        others: constants of other functions, some of which may come from here.
    """

    def __init__(self, name: str, maker: _Caller, others: Collection[str]) -> None:
        self.maker = maker
        self._name = name
        self._constants = {text: buffer for buffer, text in maker.texts.items()}
        self._made = {f"{name}:{number}": buffer for number, buffer in enumerate(maker.outputs)}
        self._others = others
        self._packed: dict[tuple[str, str], Buffer] = {}

    def packed(self, pack: str, packing: Packing, constant: Buffer, caller: _Caller, origin: str) -> Buffer:
        """The output that is what the function ``pack`` makes of a caller's constant: each once."""
        text, maker = caller.texts[constant], self.maker
        known = self._packed.get((text, pack))
        if known is not None:
            return known
        source = self._made.get(text) or self._constants.get(text)
        if source is None:
            source = self._constants[text] = replace(constant)
            maker.texts[source] = text
            maker.name(source, caller.names[constant])
        output = Buffer(f"{constant.name}_packed", packing.result.shape, packing.result.dtype)
        maker.name(output, f"{caller.names[constant]}_packed")
        maker.outputs.append(output)
        maker.calls.append(ProgramCall(pack, (address_of(source), address_of(output)), origin))
        self._packed[text, pack] = output
        return output

    def settle(self, wanted: Collection[str]) -> dict[str, str]:
        """Outputs that the caller does not take any more become temporaries; the new texts of the others.

        Args:
            wanted: the constants that it still takes.
        """
        if not any(text in self._others for text in self._made):
            for text, buffer in self._made.items():
                if text not in wanted:
                    self.maker.outputs.remove(buffer)
                    self.maker.between += (buffer,)
        return {text: self.text(buffer) for text, buffer in self._made.items() if buffer in self.maker.outputs}

    def text(self, output: Buffer) -> str:
        """What a constant that is ``output`` says of where it comes from."""
        return f"{self._name}:{self.maker.outputs.index(output)}"


class _Programs:
    """The programs that are called: which of their parameters are packed, and what they become.

    Attributes:
        made: new functions by name, those that replace others included.
    """

    def __init__(self, functions: Mapping[str, PrimFunc]) -> None:
        self.made: dict[str, PrimFunc] = {}
        self._functions = functions
        self._chosen: dict[str, dict[_Positions, str]] = {}
        self._packs: dict[tuple[str, Buffer], str] = {}
        self.packings: Callable[[str], tuple[Packing, ...]] = cache(lambda name: packings_of(functions[name]))
        self._unpacked: Callable[[str, _Positions], Unpacked] = cache(
            lambda name, positions: unpacked(functions[name], self.packings(name), positions)
        )

    def choose(self, call: ProgramCall, constants: Mapping[Buffer, str]) -> _Positions:
        """The parameters that are packed beforehand for a call, and notes that the program is wanted so."""
        given = {i for i, (_, first) in self._buffers(call).items() if first in constants}
        packable = {p.param for p in self.packings(call.function)} if given else set()
        positions = tuple(sorted(given & packable))
        self._chosen.setdefault(call.function, {})[positions] = ""
        return positions

    def make(self) -> None:
        """Makes the functions, once all calls are known."""
        taken = set(self._functions)
        known: dict[int, list[str]] = {}

        def add(label: str, func: PrimFunc) -> str:
            name = free_name(label, taken)
            taken.add(name)
            self.made[name] = func
            return name

        for name, forms in self._chosen.items():
            func = self._functions[name]
            free = () not in forms
            for positions in forms:
                forms[positions] = name
                if positions:
                    changed = self._unpacked(name, positions).function
                    if free:
                        self.made[name], free = changed, False
                    else:
                        forms[positions] = add(f"{name}_packed", fresh_function(changed))
            for packing in self.packings(name):
                if any(packing.param in positions for positions in forms):
                    pack = packing.function(func)
                    equal = known.setdefault(structural_hash(pack), [])
                    found = next((other for other in equal if structural_equal(self.made[other], pack)), None)
                    if found is None:
                        found = add(f"{name}_pack", pack)
                        equal.append(found)
                    self._packs[name, packing.result] = found

    def call(
        self, call: ProgramCall, positions: _Positions, packed: Callable[[str, Packing, Buffer, str], Buffer]
    ) -> ProgramCall:
        """``call`` as it is made with packed parameters.

        Args:
            packed: gives what a function, by name, makes of a constant; the last argument is the call's origin.
        """
        if not positions:
            return call
        buffers = self._buffers(call)
        kept = self._unpacked(call.function, positions).kept
        args = []
        for index, arg in enumerate(call.args):
            if index not in positions or index in kept:
                args.append(arg)
            if index in positions:
                _, constant = buffers[index]
                for packing in self.packings(call.function):
                    if packing.param == index:
                        pack = self._packs[call.function, packing.result]
                        args.append(address_of(packed(pack, packing, constant, call.origin)))
        return replace(call, function=self._chosen[call.function][positions], args=tuple(args))

    def _buffers(self, call: ProgramCall) -> dict[int, tuple[Buffer, Buffer]]:
        """By position: the callee's buffer, and what the call gives for it, whole."""
        params = self._functions[call.function].params
        given = {param: first.buffer for param, first in call.buffers(self._functions[call.function])}
        return {i: (p, given[p]) for i, p in enumerate(params) if isinstance(p, Buffer)}
