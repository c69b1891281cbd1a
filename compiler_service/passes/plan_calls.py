"""The memory of a function that calls others: the values between its calls, and what each call needs for itself.

A value lives from the call that makes it to the last one that reads it, a callee's temporaries while it runs. Sizes
that are multiples of one product of symbolic sizes, as of a batch, are known to be larger or smaller than each other;
constants are multiples of 1. Those of one such unit are packed into one region: the largest first, each at the lowest
gap that it fits into among those that live when it does ("greedy by size": Pisarchyk and Lee, "Efficient Memory
Management for Deep Neural Net Inference", 2020). Of symbolic ones that is done to the large, as their multiples are
rounded to the alignment; small ones share regions of their own as wholes.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from math import gcd

from compiler_service.passes.report_failures import FAILURES
from compiler_service.passes.workspace import may_be_negative, round_up, workspace_plan
from crossfarm.ir import dtype as dt
from crossfarm.ir.arith import Affine, Key, affine, const_int, structural_key
from crossfarm.ir.buffer import Buffer
from crossfarm.ir.calls import ProgramCall, address_of, calls_of, element_of
from crossfarm.ir.expr import Binary, Call, Expr, IntImm
from crossfarm.ir.function import PrimFunc
from crossfarm.ir.stmt import Allocate, AttrValue, BlockRealize, Stmt
from crossfarm.ir.visitor import seq, substitute

#: Rounding sizes to multiples of the alignment makes them larger by this part at most where they are packed.
_LARGE = 8


def plan_calls(func: PrimFunc, callees: Mapping[str, PrimFunc], align: int) -> PrimFunc:
    """A function of calls in lowered form: its memory allocated with places, and the calls given theirs.

    Args:
        callees: planned already.
        align: regions and what lies in them begin at multiples of it, in bytes.
    """
    assert isinstance(func.body, BlockRealize), "memory is planned once"
    between = func.body.block.alloc_buffers
    status = between[:1] if FAILURES in func.attrs else ()
    lends = [_Lent(call, callees[call.function]) for call in calls_of(func)]
    needs = {b: _Need(_size(b), None, None) for b in between[len(status) :]}
    for position, lent in enumerate(lends):
        for buffer in lent.touched:
            if buffer in needs:
                needs[buffer].used(position)
        if lent.need is not None:
            lent.need.used(position)
    wanted = [*needs.values(), *(lent.need for lent in lends if lent.need is not None)]
    regions = [region for unit in _by_unit(wanted) for region in _regions(unit, align)]
    body = seq(*(lent.statement(needs) for lent in lends))
    places = [(b, round_up(_size(b).whole(), align), {FAILURES: func.attrs[FAILURES]}) for b in status]
    places += [(region, size, {}) for region, size in regions]
    for number, (buffer, size, more) in reversed(list(enumerate(places))):
        taken: AttrValue = size.value if isinstance(size, IntImm) else size
        body = Allocate(buffer, body, {"place": number, "bytes": taken, **more})
    return replace(func, body=body)


@dataclass(frozen=True)
class _Size:
    """Bytes as a number times symbolic factors."""

    count: int
    factors: tuple[Expr, ...] = ()

    @classmethod
    def of(cls, factors: Sequence[Expr], count: int = 1) -> _Size:
        """``count`` times all ``factors``."""
        symbolic: list[Expr] = []
        for factor in factors:
            form = affine(factor)
            if not form.terms:
                count *= max(form.constant, 0)
                continue
            divisor = gcd(form.constant, *form.terms.values())
            count *= divisor
            terms = {key: coefficient // divisor for key, coefficient in form.terms.items()}
            rest = Affine(form.constant // divisor, terms, form.atoms).to_expr("int64")
            symbolic.append(Binary("max", rest, IntImm(0, "int64")) if may_be_negative(rest) else rest)
        return cls(count, tuple(symbolic))

    @property
    def unit(self) -> Key:
        """The same for sizes that only ``count`` tells apart."""
        return frozenset(Counter(structural_key(f) for f in self.factors).items())

    def whole(self) -> Expr:
        """The size itself."""
        if not self.factors:
            return IntImm(self.count, "int64")
        product = self.factors[0]
        for factor in self.factors[1:]:
            product = Binary("mul", product, factor)
        return product if self.count == 1 else Binary("mul", product, IntImm(self.count, "int64"))


@dataclass(eq=False)
class _Need:
    """Memory that is wanted from one call to another.

    Attributes:
        first, last: positions of these calls; None where nothing uses it.
        region, offset: where it is, in units of its size, once that is decided.
    """

    size: _Size
    first: int | None
    last: int | None
    region: Buffer | None = None
    offset: int = 0

    def used(self, position: int) -> None:
        self.first = position if self.first is None else self.first
        self.last = position

    def meets(self, other: _Need) -> bool:
        """True where there is a call at which both are wanted."""
        assert self.first is not None
        assert self.last is not None
        assert other.first is not None
        assert other.last is not None
        return self.first <= other.last and other.first <= self.last

    def address(self) -> Expr:
        assert self.region is not None, "what is used has a place"
        return address_of(self.region, _Size(self.offset, self.size.factors if self.offset else ()).whole())


class _Lent:
    """A call, and the memory that its callee needs beyond its arguments."""

    def __init__(self, call: ProgramCall, callee: PrimFunc) -> None:
        self.call = call
        self.touched = [element_of(arg).buffer for arg in call.args if _is_address(arg)]
        size = substitute(workspace_plan(callee).size, call.values(callee))
        self.need = None if const_int(size) == 0 else _Need(_Size.of([size]), None, None)

    def statement(self, needs: Mapping[Buffer, _Need]) -> Stmt:
        """The call, everything at its place."""
        args = [
            needs[element_of(arg).buffer].address() if _is_address(arg) and element_of(arg).buffer in needs else arg
            for arg in self.call.args
        ]
        if self.need is not None:
            args.append(self.need.address())
        return replace(self.call, args=tuple(args)).statement()


def _is_address(arg: Expr) -> bool:
    return isinstance(arg, Call) and arg.op == "address_of"


def _size(buffer: Buffer) -> _Size:
    return _Size.of(buffer.shape, dt.itemsize(buffer.dtype))


def _by_unit(needs: Sequence[_Need]) -> Iterator[list[_Need]]:
    """Those that are used, by unit; each with the largest first, and of equal ones the first."""
    units: dict[Key, list[_Need]] = {}
    for need in needs:
        if need.first is not None:
            units.setdefault(need.size.unit, []).append(need)
    for members in units.values():
        yield sorted(members, key=lambda need: -need.size.count)


def _regions(needs: list[_Need], align: int) -> list[tuple[Buffer, Expr]]:
    """Gives each of one unit its place; the regions that they are in, and the sizes of these."""
    unit = needs[0].size.factors
    packed = [need for need in needs if not unit or need.size.count >= _LARGE * align]
    regions = []
    if packed:
        region = _region(packed, _Size(_pack(packed, align), unit).whole())
        regions.append((region, region.shape[0]))
    for group in _sharing([need for need in needs if need not in packed]):
        region = _region(group, round_up(group[0].size.whole(), align))
        regions.append((region, region.shape[0]))
    return regions


def _region(needs: Sequence[_Need], size: Expr) -> Buffer:
    region = Buffer("arena", (size,), "uint8")
    for need in needs:
        need.region = region
    return region


def _sharing(needs: Sequence[_Need]) -> list[list[_Need]]:
    """Groups of which no two are wanted at once; the first of a group is its largest."""
    groups: list[list[_Need]] = []
    for need in needs:
        group = next((g for g in groups if not any(need.meets(other) for other in g)), None)
        if group is None:
            groups.append([need])
        else:
            group.append(need)
    return groups


def _pack(needs: Sequence[_Need], align: int) -> int:
    """Decides the offsets of needs, in units; how many units all take together."""
    placed: list[tuple[int, int, _Need]] = []  # by offset: begin, end
    for need in needs:
        size, at = -(-need.size.count // align) * align, 0
        for begin, end, other in placed:
            if begin - at >= size:
                break
            if end > at and other.meets(need):
                at = end
        need.offset = at
        placed.append((at, at + size, need))
        placed.sort(key=lambda part: part[:2])
    return max(end for _, end, _ in placed)
