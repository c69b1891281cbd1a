"""Rules about functions, their parameters and their buffers."""

from __future__ import annotations

from crossfarm.ir import dtype as dt
from crossfarm.ir.buffer import Buffer
from crossfarm.ir.expr import IntImm, Var
from crossfarm.ir.function import REDUNDANT_ATTRIBUTES, PrimFunc
from crossfarm.ir.graph.expr import Function
from crossfarm.ir.placement import TARGET, target_problem
from crossfarm.ir.stmt import Allocate, BlockRealize
from crossfarm.ir.verify.blocks import has_blocks
from crossfarm.ir.verify.rule import rule
from crossfarm.ir.verify.scope import Scope

_MAX_ALIGN = 4096


@rule("parameter-kinds", PrimFunc, hint="a parameter is a T.Buffer or a scalar")
def parameter_kinds(func: PrimFunc, scope: Scope) -> str | None:
    """Parameters are buffers in global memory and scalars."""
    for p in func.params:
        if isinstance(p, Buffer):
            if p.scope != "global":
                return f"parameter {p.name} is in {p.scope} memory"
        elif not isinstance(p, Var):
            return f"a parameter is a {type(p).__name__}"
        elif p.dtype == "handle" or dt.lanes_of(p.dtype) > 1:
            return f"parameter {p.name} is {p.dtype}"
    return None


@rule("parameters-differ", PrimFunc, hint="give each parameter a Buffer or Var of its own; names may repeat")
def parameters_differ(func: PrimFunc, scope: Scope) -> str | None:
    """No parameter is there twice."""
    seen: set[object] = set()
    for p in func.params:
        if p in seen:
            return f"parameter {p.name} is there twice"
        seen.add(p)
    return None


@rule("attribute-names", PrimFunc, hint="leave it out: the module says it already")
def attribute_names(func: PrimFunc, scope: Scope) -> str | None:
    """No attribute repeats what the module's own structure says, nor has a name that script text reads as another."""
    for key, value in func.attrs.items():
        if key in REDUNDANT_ATTRIBUTES or (key == "global_symbol" and value == scope.function):
            return f"the attribute {key!r} is redundant"
        if key.startswith("tirx."):
            return f"the attribute {key!r} is spelled tir.{key.removeprefix('tirx.')} here"
    return None


@rule("function-target", PrimFunc, hint="write it as T.target(...), or with crossfarm.ir.placement.placed")
def function_target(func: PrimFunc | Function, scope: object) -> str | None:
    """What a function is meant for, where it says so, is a target, written in the one way that crossfarm writes it."""
    return target_problem(func.attrs[TARGET]) if TARGET in func.attrs else None


@rule("block-form", PrimFunc, hint="put the body into one block named root, without axes")
def block_form(func: PrimFunc, scope: Scope) -> str | None:
    """A function with blocks has one ``root`` block without axes around everything."""
    if not has_blocks(func.body):
        return None
    body = func.body
    if not isinstance(body, BlockRealize):
        return "the function has blocks outside a root block"
    always = isinstance(body.predicate, IntImm) and body.predicate.value == 1
    if body.block.name != "root" or body.block.iter_vars or body.iter_values or not always:
        return f"the function's outermost block is {body.block.name!r}, not a root block without axes and condition"
    return None


@rule("buffer-dtype", Buffer, hint="elements are numbers or bool; vectors come by indexing with T.Ramp")
def buffer_dtype(buffer: Buffer, scope: Scope) -> str | None:
    """A buffer's elements are scalars."""
    scalar, lanes = dt.split(buffer.dtype)
    return f"buffer {buffer.name} has elements of {buffer.dtype}" if scalar == "handle" or lanes > 1 else None


@rule("buffer-shape", Buffer, hint="dimensions are integers, constant ones from 0; strides are one a dimension or none")
def buffer_shape(buffer: Buffer, scope: Scope) -> str | None:
    """Dimensions, strides and offset are scalar integers; constant dimensions are not negative."""
    offset = () if buffer.elem_offset is None else (buffer.elem_offset,)
    for e in (*buffer.shape, *buffer.strides, *offset):
        if not dt.is_int(e.dtype) or dt.lanes_of(e.dtype) > 1:
            return f"buffer {buffer.name} has a dimension, stride or offset of {e.dtype}"
    if any(isinstance(e, IntImm) and e.value < 0 for e in buffer.shape):
        return f"buffer {buffer.name} has a negative dimension"
    if buffer.strides and len(buffer.strides) != len(buffer.shape):
        return f"buffer {buffer.name} has {len(buffer.shape)} dimensions and {len(buffer.strides)} strides"
    return None


@rule("buffer-align", Buffer, hint=f"alignments are powers of two up to {_MAX_ALIGN}")
def buffer_align(buffer: Buffer, scope: Scope) -> str | None:
    """An alignment is a power of two."""
    ok = 0 < buffer.align <= _MAX_ALIGN and buffer.align & (buffer.align - 1) == 0
    return None if ok else f"buffer {buffer.name} is aligned to {buffer.align} bytes"


@rule("allocated-once", Allocate, hint="give each allocation a Buffer of its own; names may repeat")
def allocated_once(node: Allocate, scope: Scope) -> str | None:
    """A buffer is allocated in one place of a function."""
    return f"buffer {node.buffer.name} is allocated a second time" if node.buffer in scope.once_buffers else None
