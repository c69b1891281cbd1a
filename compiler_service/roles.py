"""What a function does with each parameter: reads it, only writes it, or both."""

from __future__ import annotations

from crossfarm.ir.buffer import Buffer
from crossfarm.ir.expr import BufferLoad, Expr
from crossfarm.ir.function import PrimFunc
from crossfarm.ir.stmt import Block, BlockRealize, BufferStore, Stmt
from crossfarm.ir.visitor import Visitor
from crossfarm.wire.v1.artifact_pb2 import Parameter


def parameter_roles(func: PrimFunc) -> list[Parameter.Role]:
    """One role a parameter; scalars are IN.

    A buffer is OUT when each element is written before it is read: see ``_Accesses``. When in doubt it is INOUT, so
    that nothing a caller put there is ever lost.
    """
    accesses = _Accesses()
    accesses.visit(func.body)
    roles = []
    for param in func.params:
        if not isinstance(param, Buffer) or param not in accesses.written:
            roles.append(Parameter.IN)
        else:
            roles.append(Parameter.INOUT if param in accesses.read_first else Parameter.OUT)
    return roles


class _Accesses(Visitor):
    """Walks in program order."""

    def __init__(self) -> None:
        self.written: set[Buffer] = set()
        self.read_first: set[Buffer] = set()

    def visit_BufferLoad(self, node: BufferLoad) -> None:
        self.visit_children(node)
        if node.buffer not in self.written:
            self.read_first.add(node.buffer)

    def visit_BufferStore(self, node: BufferStore) -> None:
        for expr in (*node.indices, node.value):
            self.visit(expr)
        self.written.add(node.buffer)

    def visit_BlockRealize(self, node: BlockRealize) -> None:
        for value in (*node.iter_values, node.predicate):
            self.visit(value)
        block: Block = node.block
        for part in (block.init, block.body):
            if isinstance(part, (Stmt, Expr)):
                self.visit(part)
