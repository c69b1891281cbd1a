"""Intrinsics → C-like text."""

from __future__ import annotations

from typing import Protocol

from compiler_service.codegen.c_dialect import Dialect
from crossfarm.errors import BuildFailed
from crossfarm.ir import dtype as dt
from crossfarm.ir.buffer import Buffer
from crossfarm.ir.expr import BufferLoad, Call, Expr


class Renderer(Protocol):
    """What intrinsics need of ``c_expr.ExprRenderer``, which renders their arguments."""

    kernel: str
    dialect: Dialect

    def emit(self, node: Expr) -> str: ...

    def type(self, dtype: str) -> str: ...

    def is_emulated(self, dtype: str) -> bool: ...

    def convert(self, value: str, source: str, dtype: str) -> str: ...

    def float_constant(self, value: float, dtype: str) -> str: ...

    def helper(self, name: str, definition: str) -> str: ...

    def choose(self, condition: Expr, if_true: Expr, if_false: Expr) -> str: ...

    def extern_name(self, node: Call) -> tuple[str, str]: ...

    def element(self, buffer: Buffer, indices: tuple[Expr, ...]) -> str: ...


def render_call(r: Renderer, node: Call) -> str:
    """The value of a call; ``0`` for one without a value."""
    method = _SPECIAL.get(node.op)
    if method is not None:
        return method(r, node)
    return float_call(r, node.op, [r.emit(a) for a in node.args], node.args[0].dtype)


def float_call(r: Renderer, name: str, args: list[str], dtype: str) -> str:
    """A function of floats on rendered arguments of one dtype. float16 and bfloat16 are computed in float32."""
    if dtype in ("float16", "bfloat16"):
        wide = float_call(r, name, [r.convert(a, dtype, "float32") for a in args], "float32")
        return r.convert(wide, "float32", dtype)
    type_ = r.type(dtype)
    if name == "sigmoid":
        one = r.float_constant(1.0, dtype)
        exp = r.dialect.functions["exp"]
        symbol = r.helper(
            f"cf_sigmoid_{dtype}",
            f"{type_} {{name}}({type_} x) {{\n  {type_} e = {exp}(-fabs(x));\n"
            f"  return (x >= 0 ? {one} : e) / ({one} + e); }}",
        )
        return f"{symbol}({args[0]})"
    if name in r.dialect.functions:
        return f"{r.dialect.functions[name]}({', '.join(args)})"
    raise BuildFailed(f"kernel {r.kernel!r}: no {r.dialect.name} for intrinsic {name!r} on {dtype}")


def _abs(r: Renderer, node: Call) -> str:
    dtype, value = node.dtype, r.emit(node.args[0])
    if dt.is_float(dtype):
        if r.is_emulated(dtype):
            return f"({r.type(dtype)})({value} & 0x7fff)"
        return f"{r.dialect.functions['abs']}({value})"
    if dt.is_unsigned(dtype):
        return value
    type_ = r.type(dtype)
    unsigned = r.dialect.types[f"uint{dt.bits(dtype)}"]
    body = f"return x < 0 ? ({type_})(0 - ({unsigned})x) : x;"
    return f"{r.helper(f'cf_abs_{dtype}', f'{type_} {{name}}({type_} x) {{ {body} }}')}({value})"


def _classify(r: Renderer, node: Call) -> str:
    """By bits, as no option of a compiler that assumes finite numbers may change it."""
    dtype, value = node.args[0].dtype, r.emit(node.args[0])
    if not dt.is_float(dtype):
        return "true" if node.op == "isfinite" else "false"
    if dtype in ("float16", "bfloat16"):
        value, dtype = r.convert(value, dtype, "float32"), "float32"
    bits = dt.bits(dtype)
    mask, top = (0x7FFFFFFF, 0x7F800000) if bits == 32 else (0x7FFFFFFFFFFFFFFF, 0x7FF0000000000000)
    suffix = "u" if bits == 32 else "UL"
    sign = {"isnan": ">", "isinf": "==", "isfinite": "<"}[node.op]
    return f"(({r.dialect.bits(f'uint{bits}', value)} & {mask}{suffix}) {sign} {top}{suffix})"


def _count_bits(r: Renderer, node: Call) -> str:
    """In 32 or 64 bits; leading zeros of a narrower one less those it does not have."""
    dtype = node.args[0].dtype
    bits = dt.bits(dtype)
    width = 64 if bits == 64 else 32
    unsigned, narrow = r.dialect.types[f"uint{width}"], r.dialect.types[f"uint{bits}"]
    body = (
        r.dialect.int_functions[node.op if width == 32 else f"{node.op}64"]
        if (f"{node.op}64" in r.dialect.int_functions)
        else r.dialect.int_functions[node.op]
    )
    symbol = r.helper(f"cf_{node.op}_{width}", f"int {{name}}({unsigned} x) {{ return (int){body}; }}")
    text = f"{symbol}(({narrow}){r.emit(node.args[0])})"
    if node.op == "clz" and bits < 32:
        text = f"({text} - {32 - bits})"
    return r.convert(text, "int32", node.dtype)


def _bitwise_not(r: Renderer, node: Call) -> str:
    value = r.emit(node.args[0])
    return f"!{value}" if dt.is_bool(node.dtype) else f"({r.type(node.dtype)})(~{value})"


def _reinterpret(r: Renderer, node: Call) -> str:
    source, target, value = node.args[0].dtype, node.dtype, r.emit(node.args[0])
    if dt.is_bool(source):
        value, source = f"({r.type('uint8')}){value}", "uint8"
    if dt.is_bool(target):
        return f"({value} != 0)"
    if r.type(source) == r.type(target):
        return value
    dtype = "uint16" if r.is_emulated(target) else target
    return r.dialect.bits(dtype, value)


def _if_then_else(r: Renderer, node: Call) -> str:
    return r.choose(*node.args)


def _first(r: Renderer, node: Call) -> str:
    return r.emit(node.args[0])


def _nothing(r: Renderer, node: Call) -> str:
    return "0"


def _ldexp(r: Renderer, node: Call) -> str:
    dtype = node.dtype
    value, power = r.emit(node.args[0]), r.convert(r.emit(node.args[1]), node.args[1].dtype, "int32")
    if dtype in ("float16", "bfloat16"):
        return r.convert(f"ldexp({r.convert(value, dtype, 'float32')}, {power})", "float32", dtype)
    return f"ldexp({value}, {power})"


def _q_multiply_shift(r: Renderer, node: Call) -> str:
    """``x * y * 2**(s - q)`` in 64 bits, halves rounded up."""
    wide = r.type("int64")
    symbol = r.helper(
        "cf_q_multiply_shift",
        f"{wide} {{name}}({wide} x, {wide} y, {wide} q, {wide} s) {{\n"
        f"  {wide} left = s > 0 ? s : 0, right = (s < 0 ? -s : 0) + q;\n"
        f"  return ((x << left) * y + (({wide})1 << (right - 1))) >> right; }}",
    )
    args = ", ".join(r.convert(r.emit(a), a.dtype, "int64") for a in node.args)
    return r.convert(f"{symbol}({args})", "int64", node.dtype)


def _extern(r: Renderer, node: Call) -> str:
    name, dtype = r.extern_name(node)
    args = [r.convert(r.emit(a), a.dtype, dtype) for a in node.args[1:]]
    r.type(dtype)
    function = r.dialect.functions.get(name, name)
    return r.convert(f"{function}({', '.join(args)})", dtype, node.dtype)


def _refused(r: Renderer, node: Call) -> str:
    raise BuildFailed(
        f"kernel {r.kernel!r}: {node.op} cannot be made in {r.dialect.name}",
        hint="a kernel's threads have no function to return from and no addresses to pass: write the guard as T.if",
    )


def _address_of(r: Renderer, node: Call) -> str:
    load = node.args[0]
    if not isinstance(load, BufferLoad):
        return _refused(r, node)
    return f"&{r.element(load.buffer, load.indices)}"


_SPECIAL = {
    "abs": _abs, "isnan": _classify, "isinf": _classify, "isfinite": _classify, "popcount": _count_bits,
    "clz": _count_bits, "bitwise_not": _bitwise_not, "reinterpret": _reinterpret, "if_then_else": _if_then_else,
    "likely": _first, "assume": _nothing, "ldexp": _ldexp, "q_multiply_shift": _q_multiply_shift,
    "call_extern": _extern, "call_pure_extern": _extern, "ret": _refused, "address_of": _address_of, "dot4": _refused,
    "launch_kernel": _refused, "prefetch": _nothing,
}  # fmt: skip
