"""Brings every node to its rules, in execution order, with what is in scope there. Nothing here recurses."""

from __future__ import annotations

import keyword
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from crossfarm.ir import dtype as dt
from crossfarm.ir.buffer import Buffer
from crossfarm.ir.expr import Binary, Broadcast, Call, IntImm, Let, Ramp, Select, Var
from crossfarm.ir.function import PrimFunc
from crossfarm.ir.graph.expr import Function, OperatorCall
from crossfarm.ir.graph.operators import OPERATORS
from crossfarm.ir.module import IRModule
from crossfarm.ir.schema import BY_CLASS, children, type_problem
from crossfarm.ir.stmt import Allocate, Block, BlockRealize, For, IfThenElse, LetStmt, While
from crossfarm.ir.verify.rule import RULES, apply_rules, fail, rule
from crossfarm.ir.verify.scope import BlockScope, Scope
from crossfarm.ir.verify.statements import attribute_problem
from crossfarm.ir.visitor import MAX_DEPTH


@rule("function-name", IRModule, hint="rename it; names are what Python calls identifiers")
def function_name(name: Any, scope: Any) -> str | None:
    """A function's name is an identifier and no keyword."""
    if not isinstance(name, str) or not name.isidentifier() or keyword.iskeyword(name):
        return f"{name!r} is no name for a function"
    return None


@rule("node-types", hint="build nodes with crossfarm.ir.ops, which checks as it builds")
def node_types(node: Any, scope: Any) -> str | None:
    """Every field holds what its node's definition says, and every dtype exists."""
    if node is not None and isinstance(node, bool | int | float | str | tuple | Mapping):
        return None  # inside annotations: the rule attribute-values looks at these
    if isinstance(node, OperatorCall) and isinstance(node.op, str) and node.op not in OPERATORS:
        return None  # the rule operator-exists tells it better
    problem = None if node is None else type_problem(node)
    if problem is None and isinstance(node, Ramp | Broadcast) and not 2 <= node.lanes <= dt.MAX_LANES:
        problem = f"a vector of {node.lanes} lanes; there are 2 to {dt.MAX_LANES}"
    declared = getattr(node, "dtype", None) if _declares_dtype(node) else None
    if problem is None and declared is not None and not dt.is_valid(declared):
        problem = f"{type(node).__name__} has unknown dtype {declared!r}"
    return problem


@rule("axis-count", hint="bind each axis to one value")
def axis_count(node: Any, scope: Any) -> str | None:
    """A block gets one value for each of its axes."""
    if not isinstance(node, BlockRealize):
        return None
    axes, values = len(node.block.iter_vars), len(node.iter_values)
    return None if axes == values else f"block {node.block.name} has {axes} axes and {values} values for them"


@rule("nesting-depth", hint="split the expression with T.let, or the function in two")
def nesting_depth(depth: int, scope: Any) -> str | None:
    """Nothing nests deeper than MAX_DEPTH, so that passes may recurse."""
    return f"the function nests deeper than {MAX_DEPTH} levels" if depth > MAX_DEPTH else None


def verify_names(mod: IRModule) -> None:
    """Names of functions, and the module's own attributes."""
    for name, func in mod.functions.items():
        problem = function_name(name, None)
        if problem is not None:
            fail(RULES["function-name"], problem, "")
        if not isinstance(func, PrimFunc | Function):
            fail(RULES["node-types"], f"it is a {type(func).__name__}, not a PrimFunc or a Function", name)
    check_types("", [mod.attrs])
    problem = attribute_problem(mod.attrs)
    if problem is not None:
        fail(RULES["attribute-values"], f"the module: {problem}", "")


def verify_function(name: str, func: PrimFunc) -> None:
    """All rules on one function. Raises VerifyError."""
    check_types(name, [*func.params, func.attrs, func.body])
    _Walk(Scope(name)).run(func)


def verify_expressions(exprs: Iterable[Any], scope: Scope) -> None:
    """All rules on expressions of numbers that stand where ``scope`` says. Raises VerifyError."""
    walk = _Walk(scope)
    walk.then(*walk.visits(exprs))
    walk.finish()


def _declares_dtype(node: Any) -> bool:
    spec = BY_CLASS.get(type(node))
    return spec is not None and any(f.kind == "dtype" for f in spec.fields)


def check_types(function: str, roots: Iterable[Any]) -> None:
    """First of all: depth, fields, dtypes and counts, which all other rules and the printer rely on."""
    stack = [(root, 1) for root in roots]
    while stack:
        node, depth = stack.pop()
        for name, about in (("nesting-depth", depth), ("node-types", node), ("axis-count", node)):
            problem = RULES[name].check(about, None)
            if problem is not None:
                fail(RULES[name], problem, function)
        if isinstance(node, Mapping):
            problem = attribute_problem(node)
            if problem is not None:
                fail(RULES["attribute-values"], problem, function)
        stack.extend((child, depth + 1) for _, child in children(node))


class _Walk:
    """A stack of things to do: visits of nodes, and changes of scope between them."""

    def __init__(self, scope: Scope) -> None:
        self.scope = scope
        self.todo: list[Callable[[], None]] = []

    def run(self, func: PrimFunc) -> None:
        scope = self.scope
        buffers = [p for p in func.params if isinstance(p, Buffer)]
        apply_rules(func, scope)
        for var in [p for p in func.params if isinstance(p, Var)]:
            scope.define(var)
        for buffer in buffers:
            self._define_symbols(buffer)
        for buffer in buffers:
            scope.define_buffer(buffer)
        self.then(
            *(self._visitor(b) for b in buffers),
            *self._attribute_visits(func.attrs),
            self._visitor(func.body),
        )
        self.finish()

    def finish(self) -> None:
        """Does all that is planned."""
        while self.todo:
            self.todo.pop()()

    def then(self, *actions: Callable[[], None]) -> None:
        """Does ``actions`` next, in order, before all that was planned."""
        self.todo.extend(reversed(actions))

    def _visitor(self, node: Any) -> Callable[[], None]:
        return lambda: self._visit(node)

    def visits(self, nodes: Iterable[Any]) -> list[Callable[[], None]]:
        return [self._visitor(node) for node in nodes]

    def _attribute_visits(self, attrs: Any) -> list[Callable[[], None]]:
        """Expressions inside attributes are uses like any other."""
        found, stack = [], [attrs]
        while stack:
            value = stack.pop()
            if type(value) in BY_CLASS:
                found.append(value)
            else:
                stack.extend(child for _, child in children(value))
        return self.visits(found)

    def _define_symbols(self, buffer: Buffer) -> None:
        """A bare Var that is a dimension, stride or offset and not bound yet is defined by the match."""
        for e in (*buffer.shape, *buffer.strides, buffer.elem_offset):
            if isinstance(e, Var) and e not in self.scope.variables:
                self.scope.define(e)

    def _visit(self, node: Any) -> None:
        apply_rules(node, self.scope)
        special = getattr(self, f"_visit_{type(node).__name__}", None)
        if special is not None:
            special(node)
        elif isinstance(node, Buffer):
            # a buffer is entered where it is defined; its uses only name it
            self.then(*self.visits(child for _, child in children(node)))
        else:
            parts = [c for label, c in children(node) if not isinstance(c, Buffer) and label != "annotations"]
            self.then(*self.visits(parts), *self._attribute_visits(getattr(node, "annotations", None)))

    def _visit_AttrStmt(self, node: Any) -> None:
        self.then(*self._attribute_visits(node.value), self._visitor(node.body))

    def _bound(self, var: Var, body: Any) -> list[Callable[[], None]]:
        return [
            lambda: self.scope.define(var),
            self._visitor(body),
            lambda: self.scope.variables.remove(var),
        ]

    def _guarded(self, *visits: Callable[[], None]) -> list[Callable[[], None]]:
        return [lambda: self._guard(1), *visits, lambda: self._guard(-1)]

    def _guard(self, change: int) -> None:
        self.scope.guarded += change

    def _visit_For(self, node: For) -> None:
        low, extent = self.scope.values_of(node.min), self.scope.values_of(node.extent)
        fixed = low is not None and extent is not None and low[0] == low[1] and extent[0] == extent[1]
        visits = self._bound(node.var, node.body)
        if fixed and low is not None and extent is not None and extent[0] > 0:
            self.scope.loops[node.var] = (low[0], low[0] + extent[0] - 1)
        else:
            visits = self._guarded(*visits)  # it may run not at all
        self.then(*self.visits((node.min, node.extent)), *self._attribute_visits(node.annotations), *visits)

    def _visit_While(self, node: While) -> None:
        self.then(self._visitor(node.condition), *self._guarded(self._visitor(node.body)))

    def _visit_IfThenElse(self, node: IfThenElse) -> None:
        branches = [b for b in (node.then_body, node.else_body) if b is not None]
        self.then(self._visitor(node.condition), *self._guarded(*self.visits(branches)))

    def _visit_Let(self, node: Let | LetStmt) -> None:
        form = self.scope.linear_of(node.value)
        if form is not None:
            self.scope.linear[node.var] = form
        self.then(self._visitor(node.value), *self._bound(node.var, node.body))

    _visit_LetStmt = _visit_Let

    def _visit_Select(self, node: Select) -> None:
        values = self.visits((node.true_value, node.false_value))
        self.then(self._visitor(node.condition), *self._guarded(*values))

    def _visit_Call(self, node: Call) -> None:
        visits = self.visits(node.args)
        if node.op == "if_then_else":
            visits = [visits[0], *self._guarded(*visits[1:])]
        self.then(*visits)

    def _visit_Binary(self, node: Binary) -> None:
        second = [self._visitor(node.b)]
        self.then(self._visitor(node.a), *(self._guarded(*second) if node.op in ("and", "or") else second))

    def _visit_Allocate(self, node: Allocate) -> None:
        self.then(
            *self._attribute_visits(node.annotations),
            self._visitor(node.buffer),
            lambda: self.scope.define_buffer(node.buffer),
            self._visitor(node.body),
            lambda: self.scope.buffers.remove(node.buffer),
        )

    def _visit_BlockRealize(self, node: BlockRealize) -> None:
        for axis, value in zip(node.block.iter_vars, node.iter_values):
            form = self.scope.linear_of(value)
            if form is not None:
                self.scope.linear[axis.var] = form
        body = [self._visitor(node.block)]
        always = isinstance(node.predicate, IntImm) and node.predicate.value == 1
        self.then(*self.visits((*node.iter_values, node.predicate)), *(body if always else self._guarded(*body)))

    def _visit_Block(self, node: Block) -> None:
        inner = BlockScope(node, is_root=not self.scope.blocks)
        symbols: list[Var] = []

        def enter() -> None:
            self.scope.blocks.append(inner)
            for axis in node.iter_vars:
                self.scope.define(axis.var)

        def match(matched: Any) -> None:
            before = set(self.scope.variables)
            self._define_symbols(matched.buffer)
            symbols.extend(self.scope.variables - before)
            inner.source_of[matched.buffer] = matched.source.buffer
            self.then(self._visitor(matched.buffer), lambda: self.scope.define_buffer(matched.buffer))

        def leave() -> None:
            self.scope.variables -= {axis.var for axis in node.iter_vars}
            self.scope.variables -= set(symbols)
            self.scope.buffers -= inner.own
            self.scope.blocks.pop()

        steps: list[Callable[[], None]] = [*self.visits(node.iter_vars), enter]
        for buffer in node.alloc_buffers:
            steps += [self._visitor(buffer), lambda buffer=buffer: self.scope.define_buffer(buffer)]  # type: ignore[misc]
        for matched in node.match_buffers:
            steps += [self._visitor(matched), lambda matched=matched: match(matched)]  # type: ignore[misc]
        steps += self.visits((*node.reads, *node.writes))
        steps += self._attribute_visits(node.annotations)
        if node.init is not None:
            steps += self._guarded(self._visitor(node.init))
        self.then(*steps, self._visitor(node.body), leave)

    def _visit_IterVar(self, node: Any) -> None:
        self.then(*self.visits((node.dom.min, node.dom.extent)))

    def _visit_MatchBufferRegion(self, node: Any) -> None:
        self.then(self._visitor(node.source))
