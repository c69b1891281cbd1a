"""Which elements of a buffer a piece of lowered code touches, as boxes whose ends are affine in what stands outside.

An index is exact here, over unbounded integers: one that would wrap around is out of bounds, which programs are not.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from crossfarm.ir import dtype as dt
from crossfarm.ir.arith import Affine, Analyzer, affine, const_int
from crossfarm.ir.buffer import Buffer
from crossfarm.ir.expr import Binary, BufferLoad, Call, Expr, Let, Var
from crossfarm.ir.schedule.iter_map import IterMap
from crossfarm.ir.stmt import Allocate, BufferStore, For, IfThenElse, LetStmt, SeqStmt, Stmt
from crossfarm.ir.visitor import Visitor, children, walk

#: First and last value, both included.
Ends = tuple[Affine, Affine]
#: One entry a dimension; None where the ends cannot be told.
Box = tuple[Ends | None, ...]


#: A box that is wider than this is none that anybody allocates.
_WIDEST = 1 << 32


class Opaque(Exception):
    """The buffer is used in a way that has no indices to look at, as ``address_of``."""


@dataclass(frozen=True)
class Access:
    """One load or store, and the loops around it inside the code that was looked at, outermost first."""

    node: BufferLoad | BufferStore
    loops: tuple[For, ...]


def accesses_of(buffer: Buffer, code: Stmt) -> list[Access]:
    """Every load and store of ``buffer`` in ``code``, in program order. Raises Opaque."""
    collector = _Accesses(buffer)
    collector.visit(code)
    return collector.found


def touched_box(accesses: Sequence[Access]) -> Box:
    """A box that holds what all of ``accesses`` touch, relaxed over their loops."""
    boxes = [tuple(_reach(affine(i), access.loops) for i in access.node.indices) for access in accesses]
    result = list(boxes[0])
    for box in boxes[1:]:
        result = [_union(a, b) for a, b in zip(result, box)]
    inner = {loop.var for access in accesses for loop in access.loops}
    return tuple(None if ends is None or _mentions(ends, inner) else ends for ends in result)


def relax(ends: Ends, loops: Sequence[For]) -> Ends | None:
    """``ends`` over all iterations of ``loops`` (outermost first), free of their variables; None if unknown."""
    low, high = ends
    for loop in reversed(loops):
        new_low, new_high = _at_end(low, loop, first=True), _at_end(high, loop, first=False)
        if new_low is None or new_high is None:
            return None
        low, high = new_low, new_high
    return low, high


def _reach(form: Affine, loops: Sequence[For]) -> Ends | None:
    """Ends that ``form`` stays within over all iterations of ``loops``: quotients and remainders of their variables by
    the values these can have, so that the ends need not be reached."""
    inner = {loop.var for loop in loops}
    low, high = copied(form), copied(form)
    analyzer = None
    for key, coefficient in form.terms.items():
        atom = form.atoms[key]
        if isinstance(atom, Var) or not is_fixed(atom) or not any(n in inner for n in walk(atom)):
            continue
        if analyzer is None:
            analyzer = Analyzer()
            for loop in loops:
                analyzer.bind_loop(loop.var, loop.min, loop.extent)
        within = analyzer.bounds(atom)
        # what depends on other variables too moves with them, and has no ends here but for those of a remainder
        remainder = isinstance(atom, Binary) and atom.op == "floormod" and const_int(atom.b) is not None
        alone = all(n in inner for n in walk(atom) if isinstance(n, Var))
        if not (alone or remainder) or within.high - within.low > _WIDEST:
            return relax((form, form), loops)
        least, most = (within.low, within.high) if coefficient > 0 else (within.high, within.low)
        for ends, value in ((low, least), (high, most)):
            ends.add_atom(key, atom, -coefficient)
            ends.constant += coefficient * value
    return relax((low, high), loops)


def moves_apart(box: Box, loop: For) -> bool:
    """True when boxes of different iterations have no element in common: one dimension is the loop's variable times at
    least its width, plus what is the same in all iterations."""
    changing = {loop.var, *defined_in(loop.body)}
    for low, high in (ends for ends in box if ends is not None):
        width = difference(high, low)
        others = [atom for key, atom in low.atoms.items() if key in low.terms and key is not loop.var]
        same = all(is_fixed(atom) and not any(n in changing for n in walk(atom)) for atom in others)
        if same and not width.terms and abs(low.terms.get(loop.var, 0)) > width.constant:
            return True
    return False


def is_fixed(expr: Expr) -> bool:
    """True when ``expr`` has one value as long as its variables have: it neither loads nor calls."""
    return not any(isinstance(node, (BufferLoad, Call)) for node in walk(expr))


def difference(a: Affine, b: Affine) -> Affine:
    """``a - b``."""
    result = copied(a)
    result.add(b, -1)
    return result


def copied(form: Affine) -> Affine:
    """A copy that can be added to."""
    return Affine(form.constant, dict(form.terms), dict(form.atoms))


def bounds_checks(buffer: Buffer, code: Stmt) -> frozenset[Expr]:
    """Conditions that do no more than keep a store inside ``buffer``: ``i < n`` around a store to element ``i``.

    Where such a condition does not hold there is no element that anybody could load.
    """
    found: set[Expr] = set()

    def visit(node: Stmt, around: tuple[Expr, ...]) -> None:
        if isinstance(node, IfThenElse) and node.else_body is None:
            visit(node.then_body, (*around, node.condition))
        elif isinstance(node, BufferStore):
            if node.buffer is buffer:
                found.update(c for c in around if all(_keeps_inside(part, node) for part in _conjuncts(c)))
        else:
            inside = around if isinstance(node, (SeqStmt, LetStmt, For)) else ()
            for child in children(node):
                if isinstance(child, Stmt):
                    visit(child, inside)

    visit(code, ())
    return frozenset(found)


def _conjuncts(condition: Expr) -> list[Expr]:
    if isinstance(condition, Binary) and condition.op == "and":
        return [*_conjuncts(condition.a), *_conjuncts(condition.b)]
    return [condition]


def _keeps_inside(condition: Expr, store: BufferStore) -> bool:
    if not (isinstance(condition, Binary) and condition.op == "lt" and dt.is_int(condition.a.dtype)):
        return False
    room = difference(affine(condition.b), affine(condition.a))
    for index, extent in zip(store.indices, store.buffer.shape):
        left = difference(difference(affine(extent), affine(index)), room)
        if not left.terms and left.constant == 0:
            return True
    return False


def is_written_before_it_is_read(buffer: Buffer, code: Stmt, always: frozenset[Expr] = frozenset()) -> bool:
    """True when each element of ``buffer`` that ``code`` loads was surely stored by ``code`` before. Raises Opaque.

    Args:
        always: conditions that hold for every element there is, see ``bounds_checks``.
    """
    try:
        _Coverage(buffer, always).scan(code)
    except _Uncovered:
        return False
    return True


class _Accesses(Visitor):
    def __init__(self, buffer: Buffer) -> None:
        self.buffer = buffer
        self.loops: list[For] = []
        self.found: list[Access] = []

    def visit_For(self, node: For) -> None:
        self.visit(node.min)
        self.visit(node.extent)
        self.loops.append(node)
        self.visit(node.body)
        self.loops.pop()

    def visit_BufferLoad(self, node: BufferLoad) -> None:
        self._indices(node)
        if node.buffer is self.buffer:
            self.found.append(Access(node, tuple(self.loops)))

    def visit_BufferStore(self, node: BufferStore) -> None:
        self.visit(node.value)
        self._indices(node)
        if node.buffer is self.buffer:
            self.found.append(Access(node, tuple(self.loops)))

    def visit_Call(self, node: Call) -> None:
        if node.op == "address_of" and any(n is self.buffer for n in walk(node)):
            raise Opaque
        self.visit_children(node)

    def _indices(self, node: BufferLoad | BufferStore) -> None:
        for index in node.indices:
            if node.buffer is self.buffer and dt.lanes_of(index.dtype) != 1:
                raise Opaque
            self.visit(index)


class _Uncovered(Exception):
    """Some element may be loaded that was not stored before."""


@dataclass(frozen=True)
class _Written:
    """A box that is surely stored, in variables of the first ``depth`` loops around and of what is outside."""

    box: tuple[Ends, ...]
    depth: int


class _Coverage:
    """Walks code in its order; knows at each place what was surely stored before."""

    def __init__(self, buffer: Buffer, always: frozenset[Expr]) -> None:
        self.buffer = buffer
        self.always = always
        self.loops: list[For] = []
        self.known: list[_Written] = []

    def scan(self, node: Stmt) -> list[_Written]:
        """What ``node`` surely stores, in variables of the loops around it. Raises _Uncovered."""
        match node:
            case BufferStore():
                self._check_loads(node)
                if node.buffer is not self.buffer or not all(is_fixed(index) for index in node.indices):
                    return []
                forms = [affine(index) for index in node.indices]
                return [_Written(tuple((form, form) for form in forms), len(self.loops))]
            case SeqStmt():
                return self._in_order(node)
            case For():
                return self._loop(node)
            case IfThenElse() if node.condition in self.always:
                return self.scan(node.then_body)
            case IfThenElse():
                self._check_loads(node.condition)
                for branch in (node.then_body, node.else_body):
                    if branch is not None:
                        self.scan(branch)
                return []
            case LetStmt():
                self._check_loads(node.value)
                stored = self.scan(node.body)
                return [w for w in stored if not any(_mentions(ends, {node.var}) for ends in w.box)]
            case Allocate():
                return self.scan(node.body)
        # whatever else runs in an order or a number of times that is not looked at: its loads must be covered before,
        # and nothing that it stores counts
        for child in children(node):
            if isinstance(child, Stmt):
                self.scan(child)
            elif isinstance(child, Expr):
                self._check_loads(child)
        return []

    def _in_order(self, node: SeqStmt) -> list[_Written]:
        before = len(self.known)
        for stmt in node.stmts:
            self.known.extend(self.scan(stmt))
        stored = self.known[before:]
        del self.known[before:]
        return stored

    def _loop(self, node: For) -> list[_Written]:
        self._check_loads(node.min)
        self._check_loads(node.extent)
        counted = self._counted(node)
        self.loops.append(node)
        stored = self.scan(node.body)
        self.loops.pop()
        if counted is not None:
            return [counted]
        return [w for w in (_over_loop(written, node) for written in stored) if w is not None]

    def _counted(self, node: For) -> _Written | None:
        """What a nest of loops around one store fills, where it stores as many different elements as its box has."""
        nest: list[For] = []
        inner: Stmt = node
        while isinstance(inner, For) or (isinstance(inner, IfThenElse) and inner.condition in self.always):
            if isinstance(inner, For):
                nest.append(inner)
                inner = inner.body
            else:
                inner = inner.then_body
        if not (isinstance(inner, BufferStore) and inner.buffer is self.buffer):
            return None
        extents = {loop.var: loop.extent for loop in nest}
        counts = [const_int(loop.extent) for loop in nest]
        if any(const_int(loop.min) != 0 for loop in nest) or any(not count for count in counts):
            return None
        if not all(is_fixed(index) for index in inner.indices):
            return None
        box = [_reach(affine(index), nest) for index in inner.indices]
        own = set(extents)
        size, moving = 1, []
        for index, ends in zip(inner.indices, box):
            if ends is None or _mentions(ends, own):
                return None
            width = difference(ends[1], ends[0])
            if width.terms:
                return None
            size *= width.constant + 1
            rest = affine(index)
            for key in [k for k, atom in rest.atoms.items() if not any(n in own for n in walk(atom))]:
                rest.terms.pop(key, None)
            moving.append(rest.to_expr(index.dtype))
        if size != math.prod(count or 0 for count in counts) or IterMap(extents).injective(moving) is not None:
            return None
        return _Written(tuple(ends for ends in box if ends is not None), len(self.loops))

    def _check_loads(self, node: Expr | Stmt) -> None:
        for load in walk(node):
            if isinstance(load, BufferLoad) and load.buffer is self.buffer and not self._is_covered(load):
                raise _Uncovered

    def _is_covered(self, load: BufferLoad) -> bool:
        forms = [affine(index) for index in load.indices]
        for written in self.known:
            inner = self.loops[written.depth :]
            ends = [_reach(form, inner) for form in forms]
            if all(e is not None and _holds(box, e) for e, box in zip(ends, written.box)):
                return True
        return False


def _over_loop(written: _Written, loop: For) -> _Written | None:
    """What is stored over all iterations, where that is a box again: one dimension moves on, leaving no gaps."""
    moving = [d for d, ends in enumerate(written.box) if _mentions(ends, {loop.var})]
    runs = affine(loop.extent)
    surely = not runs.terms and runs.constant >= 1
    if not moving:
        return _Written(written.box, written.depth - 1) if surely else None
    if len(moving) > 1:
        return None
    (d,) = moving
    low, high = written.box[d]
    width, step = difference(high, low), low.terms.get(loop.var, 0)
    # without iterations the box must be empty, which it is where each one starts just behind the one before
    gapless = step == width.constant + 1 or (surely and 0 < step <= width.constant)
    if width.terms or not gapless:
        return None
    ends = relax((low, high), [loop])
    if ends is None:
        return None
    return _Written((*written.box[:d], ends, *written.box[d + 1 :]), written.depth - 1)


def _holds(outer: Ends, inner: Ends) -> bool:
    below, above = difference(inner[0], outer[0]), difference(outer[1], inner[1])
    return not below.terms and not above.terms and below.constant >= 0 and above.constant >= 0


def _at_end(form: Affine, loop: For, *, first: bool) -> Affine | None:
    """The smallest (``first``) or largest value of ``form`` over the loop."""
    coefficient = form.terms.get(loop.var)
    rest = copied(form)
    rest.terms.pop(loop.var, None)
    if any(n is loop.var for key in rest.terms for n in walk(rest.atoms[key])):
        return None
    if coefficient is None:
        return rest
    rest.add(affine(loop.min), coefficient)
    if (coefficient > 0) != first:
        rest.add(affine(loop.extent), coefficient)
        rest.constant -= coefficient
    return rest


def _union(a: Ends | None, b: Ends | None) -> Ends | None:
    if a is None or b is None:
        return None
    low, high = difference(a[0], b[0]), difference(a[1], b[1])
    if low.terms or high.terms:
        return None
    return (a[0] if low.constant <= 0 else b[0]), (a[1] if high.constant >= 0 else b[1])


def _mentions(ends: Ends, variables: set[Var]) -> bool:
    return any(n in variables for form in ends for key in form.terms for n in walk(form.atoms[key]))


def defined_in(code: Stmt) -> set[Var]:
    """Variables that loops and lets in ``code`` define."""
    return {node.var for node in walk(code) if isinstance(node, (For, LetStmt, Let))}
