'''``Schedule``: transforms an IRModule step by step, each step checked, recorded and replayable.

::

    sch = Schedule(module)
    block = sch.get_block("C")
    i, j, k = sch.get_loops(block)
    j0, j1 = sch.split(j, [None, 16])
    sch.reorder(i, j0, k, j1)
    sch.vectorize(j1)
    sch.module.script()

The primitives come from one mix-in class a family, ``methods_<family>.py`` (each public method there is an instruction
that traces know), over pure functions in the family's other files. Adding one is two steps, neither of them here:

1. the pure function, with the method's name, arguments and order, but blocks as names and loops as Vars::

       def cache_read(func: PrimFunc, block: str, read_index: int, scope: str) -> tuple[PrimFunc, str]: ...

   It returns the new function and a result: block names (str), loop Vars, a tuple of those, or None. It refuses with
   ``tree.refuse(primitive, reason, at=statement)`` and leaves Vars and Buffers of what it does not touch as they are.

2. the typed method in the family's mix-in, with the docstring that users read::

       class LayoutMethods(ScheduleBase):
           def cache_read(self, block: BlockRef, read_index: int, scope: str) -> BlockRef:
               """Reads through a copy of the buffer in ``scope``; the copy's block. …"""
               return self._apply(cache.cache_read, block, read_index, scope)

Arguments that reach ``_apply`` must be references, plain data, tuples or lists of these, ``Expr`` or ``IndexMap``: a
callable is made an ``IndexMap`` by the method before (``crossfarm.ir.schedule.index_map``).
'''

from __future__ import annotations

from crossfarm.ir.schedule.methods_layout import LayoutMethods
from crossfarm.ir.schedule.methods_location import LocationMethods
from crossfarm.ir.schedule.methods_loops import LoopMethods
from crossfarm.ir.schedule.methods_marks import MarkMethods
from crossfarm.ir.schedule.methods_sample import SampleMethods
from crossfarm.ir.schedule.methods_tensorize import TensorizeMethods
from crossfarm.ir.schedule.references import BlockRef, LoopRef, Sampled

__all__ = ["BlockRef", "LoopRef", "Sampled", "Schedule"]


class Schedule(LoopMethods, MarkMethods, LayoutMethods, LocationMethods, TensorizeMethods, SampleMethods):
    """A module under transformation; the primitives are methods, named and ordered as in TVM."""

    def show(self) -> None:
        """Prints the module as it is now."""
        print(self.module.script())
