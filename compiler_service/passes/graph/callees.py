"""The functions that lowered graph functions call: the module's own, and a few that are made for them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from crossfarm.errors import InvalidModule
from crossfarm.ir import te
from crossfarm.ir.expr import Binary, Var
from crossfarm.ir.function import PrimFunc
from crossfarm.ir.module import IRModule
from crossfarm.ir.naming import free_name
from crossfarm.ir.stmt import AssertStmt


class Callees:
    """Finds and makes functions to call.

    Attributes:
        made: the new ones, all private.
    """

    def __init__(self, module: IRModule) -> None:
        self._module = module
        self._taken = set(module.functions)
        self._names: dict[str, str] = {}
        self.made: dict[str, PrimFunc] = {}

    def __getitem__(self, name: str) -> PrimFunc:
        return self.made[name] if name in self.made else self._module.prim_func(name)

    def private(self, name: str) -> str:
        """The function ``name``, or a private one like it: what may be called from outside is no other's to change.

        Raises InvalidModule where the module has no PrimFunc of that name.
        """
        if name in self.made:
            return name
        func = self._module.functions.get(name)
        if not isinstance(func, PrimFunc):
            raise InvalidModule(f"module {self._module.name!r} has no tensor program {name!r} to call")
        return name if func.private else self._once(f"{name}_called", lambda: replace(func, private=True))

    def copy(self, dtype: str) -> str:
        """``copy(x, y)``: y becomes x, both of one dimension."""

        def make() -> PrimFunc:
            x = te.placeholder((te.var("n"),), dtype, name="x")
            return te.create_prim_func([x, te.compute(x.shape, lambda i: x[i], name="copy")])

        return self._once(f"copy_{dtype}", make)

    def check(self, message: str) -> str:
        """``check(a, b)``: fails with ``message`` where the two numbers differ."""

        def make() -> PrimFunc:
            a, b = Var("a", "int64"), Var("b", "int64")
            return PrimFunc((a, b), AssertStmt(Binary("eq", a, b), message))

        return self._once("check", make, message)

    def _once(self, label: str, make: Callable[[], PrimFunc], key: str = "") -> str:
        known = self._names.get(label + key)
        if known is not None:
            return known
        name = free_name(label, self._taken)
        self._taken.add(name)
        self._names[label + key] = name
        self.made[name] = replace(make(), private=True)
        return name
