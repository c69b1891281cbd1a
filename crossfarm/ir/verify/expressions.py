"""Rules about expressions."""

from __future__ import annotations

from crossfarm.ir import dtype as dt
from crossfarm.ir.arith import const_int
from crossfarm.ir.buffer import BufferRegion
from crossfarm.ir.expr import (
    ARITHMETIC,
    BITWISE,
    LOGICAL,
    Binary,
    Broadcast,
    BufferLoad,
    Call,
    Cast,
    Expr,
    FloatImm,
    IntImm,
    Let,
    Not,
    Ramp,
    Select,
    StringImm,
    Var,
)
from crossfarm.ir.intrinsics import EXTERN_ALLOWED, INTRINSICS
from crossfarm.ir.stmt import (
    AssertStmt,
    AttrStmt,
    BlockRealize,
    BufferStore,
    Evaluate,
    For,
    IfThenElse,
    LetStmt,
    While,
)
from crossfarm.ir.verify.rule import rule
from crossfarm.ir.verify.scope import Scope

_INT_ONLY = ("mod", "floordiv", "floormod", "shl", "shr")
_MEMORY = ("memcpy", "memmove", "memset")
#: Arguments after the first that need not have the first one's dtype.
_MIXED = ("ldexp", "dot4")


@rule("variable-defined", Var, hint="bind it by a loop, an axis, a let, a parameter, or as a dimension of a buffer")
def variable_defined(node: Var, scope: Scope) -> str | None:
    """A variable is used only where it is bound."""
    if node in scope.variables:
        return None
    if node in scope.once_variables:
        return f"{node.name} is used outside the scope that binds it"
    return f"{node.name} is not defined"


@rule("defined-once", For, Let, LetStmt, hint="give each binding a Var of its own; names may repeat")
def defined_once(node: For | Let | LetStmt, scope: Scope) -> str | None:
    """A variable is bound in one place of a function, so that facts about it hold everywhere."""
    return f"{node.var.name} is bound a second time" if node.var in scope.once_variables else None


@rule("constant-fits", IntImm, FloatImm, hint="choose a wider dtype")
def constant_fits(node: IntImm | FloatImm, scope: Scope) -> str | None:
    """A constant is a scalar of a fitting kind, and an integer one is in its dtype's range."""
    if dt.lanes_of(node.dtype) != 1:
        return f"a constant of vector dtype {node.dtype}; vectors of one constant are broadcasts"
    if isinstance(node, FloatImm):
        return None if dt.is_float(node.dtype) else f"a float constant of dtype {node.dtype}"
    if not (dt.is_int(node.dtype) or dt.is_bool(node.dtype)):
        return f"an integer constant of dtype {node.dtype}"
    low, high = dt.int_range(node.dtype)
    return None if low <= node.value <= high else f"the constant {node.value} does not fit {node.dtype}"


@rule("operands-agree", Binary, hint='cast one side, as T.Cast("float32", x)')
def operands_agree(node: Binary, scope: Scope) -> str | None:
    """Both sides of an operator have one dtype, lanes included."""
    if node.a.dtype == node.b.dtype:
        return None
    return f"the sides of {node.op} have different dtypes, {node.a.dtype} and {node.b.dtype}"


@rule("operator-domain", Binary, hint="cast the operands, or use the operator for their dtype")
def operator_domain(node: Binary, scope: Scope) -> str | None:
    """Logic is about bool; bits about integers and bool; truncating and flooring division and shifts about integers;
    other arithmetic about numbers, min and max also about bool."""
    dtype = node.a.dtype
    if dtype == "handle":
        return f"{node.op} is not defined on handles"
    if node.op in LOGICAL and not dt.is_bool(dtype):
        return f"{node.op} needs bool, not {dtype}"
    if node.op in _INT_ONLY and not dt.is_int(dtype):
        return f"{node.op} needs integers, not {dtype}"
    if node.op in BITWISE and dt.is_float(dtype):
        return f"{node.op} needs integers or bool, not {dtype}"
    if node.op in ARITHMETIC and dt.is_bool(dtype) and node.op not in ("min", "max"):
        return f"{node.op} needs numbers, not {dtype}"
    return None


@rule("shift-amount", Binary, hint="an amount is from 0 to the number of bits less one")
def shift_amount(node: Binary, scope: Scope) -> str | None:
    """A constant shift amount is below the number of bits."""
    amount = node.b if node.op in ("shl", "shr") else None
    if isinstance(amount, Broadcast):
        amount = amount.value
    if isinstance(amount, IntImm) and not 0 <= amount.value < dt.bits(amount.dtype):
        return f"a shift of {amount.dtype} by {amount.value}"
    return None


@rule("not-bool", Not, hint="compare with zero first")
def not_of_bool(node: Not, scope: Scope) -> str | None:
    """``not`` is about bool."""
    return None if dt.is_bool(node.a.dtype) else f"not of {node.a.dtype}"


@rule("cast-shape", Cast, hint="use T.reinterpret for bit patterns and T.Broadcast for lanes")
def cast_shape(node: Cast, scope: Scope) -> str | None:
    """A cast keeps the number of lanes and has no handle on either side."""
    source = node.value.dtype
    if "handle" in (source, node.dtype) or dt.lanes_of(source) != dt.lanes_of(node.dtype):
        return f"a cast from {source} to {node.dtype}"
    return None


@rule("select-agrees", Select, hint="cast one of the values")
def select_agrees(node: Select, scope: Scope) -> str | None:
    """The values of a select have one dtype; its condition is one bool, or one for each lane."""
    if node.true_value.dtype != node.false_value.dtype:
        return f"the values of a select have different dtypes, {node.true_value.dtype} and {node.false_value.dtype}"
    condition = node.condition.dtype
    if not dt.is_bool(condition) or dt.lanes_of(condition) not in (1, dt.lanes_of(node.dtype)):
        return f"the condition of a select of {node.dtype} is {condition}"
    return None


@rule("let-agrees", Let, LetStmt, hint="bind a variable of the value's dtype")
def let_agrees(node: Let | LetStmt, scope: Scope) -> str | None:
    """A let's variable has its value's dtype, and is no handle."""
    if node.var.dtype != node.value.dtype:
        return f"{node.var.name} is {node.var.dtype}, its value {node.value.dtype}"
    return f"{node.var.name} binds a handle" if node.value.dtype == "handle" else None


@rule("vector-parts", Ramp, Broadcast, hint="vectors are made of scalars")
def vector_parts(node: Ramp | Broadcast, scope: Scope) -> str | None:
    """A ramp is made of two integer scalars of one dtype, a broadcast of one scalar."""
    if isinstance(node, Broadcast):
        scalar = dt.lanes_of(node.value.dtype) == 1 and node.value.dtype != "handle"
        return None if scalar else f"a broadcast of {node.value.dtype}"
    base, stride = node.base.dtype, node.stride.dtype
    if base != stride or dt.lanes_of(base) != 1 or not dt.is_int(base):
        return f"a ramp from {base} by {stride}"
    return None


@rule("conditions-bool", IfThenElse, While, AssertStmt, BlockRealize, hint="compare with zero first")
def conditions_bool(node: IfThenElse | While | AssertStmt | BlockRealize, scope: Scope) -> str | None:
    """Conditions and predicates are scalar bool."""
    condition = node.predicate if isinstance(node, BlockRealize) else node.condition
    return None if condition.dtype == "bool" else f"the condition is {condition.dtype}, not bool"


@rule("buffer-defined", BufferLoad, BufferStore, BufferRegion, hint="declare it as a parameter or by T.alloc_buffer")
def buffer_defined(node: BufferLoad | BufferStore | BufferRegion, scope: Scope) -> str | None:
    """A buffer is used only where it is a parameter, allocated, or matched."""
    if node.buffer in scope.buffers:
        return None
    gone = "outside its scope" if node.buffer in scope.once_buffers else "but not defined"
    return f"buffer {node.buffer.name} is used {gone}"


@rule("index-count", BufferLoad, BufferStore, hint="give one index for each dimension")
def index_count(node: BufferLoad | BufferStore, scope: Scope) -> str | None:
    """As many indices as dimensions."""
    have, want = len(node.indices), len(node.buffer.shape)
    return None if have == want else f"buffer {node.buffer.name} of {want} dimensions has {have} indices"


@rule("index-dtype", BufferLoad, BufferStore, hint="cast indices to int64; one index may be a vector")
def index_dtype(node: BufferLoad | BufferStore, scope: Scope) -> str | None:
    """Indices are integers, at most one of them a vector."""
    for e in node.indices:
        if not dt.is_int(e.dtype):
            return f"an index into {node.buffer.name} is {e.dtype}"
    vectors = sum(dt.lanes_of(e.dtype) > 1 for e in node.indices)
    return f"{vectors} indices into {node.buffer.name} are vectors" if vectors > 1 else None


@rule("index-in-bounds", BufferLoad, BufferStore, hint="indices are from 0 to the dimension less one")
def index_in_bounds(node: BufferLoad | BufferStore, scope: Scope) -> str | None:
    """An index that is sure to leave its buffer is refused; one that only might is the compiler's to check."""
    if scope.guarded:
        return None
    for axis, (e, size) in enumerate(zip(node.indices, node.buffer.shape)):
        values = scope.values_of(e)
        if values is not None and isinstance(size, IntImm) and not 0 <= values[0] <= values[1] < size.value:
            reached = f"{values[0]}" if values[0] == values[1] else f"{values[0]} to {values[1]}"
            return f"index {axis} of {node.buffer.name} is {reached}, outside its dimension of {size.value}"
    return None


@rule("intrinsic-arity", Call, hint="see crossfarm/ir/intrinsics.py")
def intrinsic_arity(node: Call, scope: Scope) -> str | None:
    """An intrinsic has as many arguments as its row says."""
    want, have = INTRINSICS[node.op].arity, len(node.args)
    return None if want in (-1, have) else f"{node.op} takes {want} arguments, not {have}"


@rule("intrinsic-dtype", Call, hint="cast the arguments, or the result")
def intrinsic_dtype(node: Call, scope: Scope) -> str | None:
    """Arguments are in the intrinsic's domain and agree, and the call's dtype is what that gives."""
    row = INTRINSICS[node.op]
    if row.arity == -1:
        return None
    dtypes = [a.dtype for a in node.args]
    fits = {"float": dt.is_float, "int": dt.is_int, "number": lambda d: dt.is_float(d) or dt.is_int(d)}.get(row.domain)
    if fits is not None and not fits(dtypes[0]):
        return f"{node.op} is not defined on {dtypes[0]}"
    if row.result == "same" and node.op not in _MIXED and len(set(dtypes)) > 1:
        return f"the arguments of {node.op} have different dtypes: {', '.join(dtypes)}"
    want = _result_dtype(node, dtypes)
    return None if node.dtype == want else f"{node.op} of {', '.join(dtypes)} gives {want}, not {node.dtype}"


def _result_dtype(node: Call, dtypes: list[str]) -> str:
    match INTRINSICS[node.op].result:
        case "same":
            return dtypes[0]
        case "second":
            return dtypes[1]
        case "bool":
            return dt.with_lanes("bool", dt.lanes_of(dtypes[0]))
        case "void":
            return "int32"
        case _:
            return node.dtype


@rule("if-then-else", Call, hint="the condition is one bool and the values agree; T.Select takes vectors of bool")
def if_then_else(node: Call, scope: Scope) -> str | None:
    """``if_then_else`` chooses by a scalar bool between values of one dtype."""
    if node.op != "if_then_else":
        return None
    condition, a, b = (x.dtype for x in node.args)
    return None if condition == "bool" and a == b else f"if_then_else of {condition}, {a} and {b}"


@rule("reinterpret-width", Call, hint="both sides of a reinterpret take the same number of bits")
def reinterpret_width(node: Call, scope: Scope) -> str | None:
    """Reinterpreting keeps the number of bits; of a vector the lanes may change, lowest first: int8x4 is an int32."""
    if node.op != "reinterpret":
        return None
    source = node.args[0].dtype
    same = dt.itemsize(source) == dt.itemsize(node.dtype)
    ok = same and not {"handle", "bool"} & {dt.scalar_of(source), dt.scalar_of(node.dtype)}
    return None if ok else f"{source} cannot be reinterpreted as {node.dtype}"


@rule("count-result", Call, hint="clz gives an integer for each lane; q_multiply_shift is about int32")
def count_result(node: Call, scope: Scope) -> str | None:
    """``clz`` gives integers, lane by lane; ``q_multiply_shift`` is defined on int32."""
    if node.op == "clz":
        ok = dt.is_int(node.dtype) and dt.lanes_of(node.dtype) == dt.lanes_of(node.args[0].dtype)
        return None if ok else f"clz of {node.args[0].dtype} cannot give {node.dtype}"
    if node.op == "q_multiply_shift" and dt.scalar_of(node.dtype) != "int32":
        return f"q_multiply_shift of {node.dtype}"
    return None


@rule("dot-product", Call, hint="int32 accumulators, and 8-bit integers in vectors of four times as many lanes")
def dot_product(node: Call, scope: Scope) -> str | None:
    """``dot4`` adds four products of 8-bit integers, each of either sign, to each lane of int32."""
    if node.op != "dot4":
        return None
    accumulator, *factors = (a.dtype for a in node.args)
    lanes = 4 * dt.lanes_of(accumulator)
    ok = dt.scalar_of(accumulator) == "int32" and all(
        dt.scalar_of(f) in ("int8", "uint8") and dt.lanes_of(f) == lanes for f in factors
    )
    return None if ok else f"dot4 of {accumulator}, {' and '.join(factors)}"


@rule("assumption-bool", Call, hint="assume a comparison")
def assumption_bool(node: Call, scope: Scope) -> str | None:
    """``assume`` takes one bool."""
    return f"assume of {node.args[0].dtype}" if node.op == "assume" and node.args[0].dtype != "bool" else None


@rule("extern-allowed", Call, hint="allowed are libm's functions, memcpy, memmove and memset")
def extern_allowed(node: Call, scope: Scope) -> str | None:
    """An extern call names an allowed function and gives it its number of arguments, in its dtype."""
    if node.op not in ("call_extern", "call_pure_extern"):
        return None
    if not node.args or not isinstance(node.args[0], StringImm):
        return f"{node.op} without a function's name"
    name, args = node.args[0].value, node.args[1:]
    if name not in EXTERN_ALLOWED:
        return f"the function {name!r} may not be called"
    if len(args) != EXTERN_ALLOWED[name]:
        return f"{name} takes {EXTERN_ALLOWED[name]} arguments, not {len(args)}"
    if name in _MEMORY:
        return _memory_call_problem(name, args, node.dtype)
    want = "float32" if name.endswith("f") and name[:-1] in EXTERN_ALLOWED else "float64"
    dtypes = [node.dtype, *(a.dtype for a in args)]
    return None if set(dtypes) == {want} else f"{name} is about {want}, not {', '.join(dtypes)}"


def _memory_call_problem(name: str, args: tuple[Expr, ...], result: str) -> str | None:
    handles = 1 if name == "memset" else 2
    if any(a.dtype != "handle" for a in args[:handles]) or result != "handle":
        return f"{name} takes and gives addresses (T.address_of), not {result} of {', '.join(a.dtype for a in args)}"
    if any(not dt.is_int(a.dtype) or dt.lanes_of(a.dtype) > 1 for a in args[handles:]):
        return f"{name} takes integers after its addresses"
    return None


@rule("addresses-to-extern", Call, hint="addresses exist only as arguments of memcpy, memmove, memset and functions")
def addresses_to_extern(node: Call, scope: Scope) -> str | None:
    """Addresses and strings are arguments of extern calls, kernels and functions alone; an address is an element's."""
    if node.op == "address_of":
        return None if isinstance(node.args[0], BufferLoad) and node.dtype == "handle" else "an address of no element"
    if node.op in ("call_extern", "call_pure_extern", "storage_sync"):
        return None
    if node.op in ("launch_kernel", "call_function"):
        return None if node.args and isinstance(node.args[0], StringImm) else f"{node.op} without a function's name"
    if node.op == "prefetch":
        first, *level = node.args
        right = isinstance(first, Call) and first.op == "address_of" and [const_int(n) for n in level] in ([1], [2])
        return None if right else "prefetch takes the address of an element and the level of a cache, 1 or 2"
    return f"{node.op} of a handle" if any(a.dtype == "handle" for a in node.args) else None


@rule(
    "effects-as-statements",
    Binary,
    Not,
    Cast,
    Select,
    Let,
    LetStmt,
    Call,
    BufferLoad,
    BufferStore,
    Ramp,
    Broadcast,
    For,
    IfThenElse,
    While,
    AssertStmt,
    AttrStmt,
    BlockRealize,
    hint="use it as a statement of its own: T.evaluate",
)
def effects_as_statements(node: Expr, scope: Scope) -> str | None:
    """What gives no value stands alone in an Evaluate."""
    for child in _operands(node):
        if isinstance(child, Call) and INTRINSICS[child.op].result == "void":
            return f"{child.op} gives no value"
        if child.dtype == "handle" and not isinstance(node, Call):
            return "a handle is used as a value"
    return None


def _operands(node: object) -> list[Expr]:
    found: list[Expr] = []
    for value in vars(node).values():
        found.extend(v for v in (value if isinstance(value, tuple) else (value,)) if isinstance(v, Expr))
    return found


@rule("evaluate-calls", Evaluate, hint="store or bind the value")
def evaluate_calls(node: Evaluate, scope: Scope) -> str | None:
    """An address alone is no statement."""
    return "an address alone" if isinstance(node.value, Call) and node.value.op == "address_of" else None
