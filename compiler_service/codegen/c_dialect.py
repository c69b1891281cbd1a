"""What differs between the C-like languages that kernels are written in."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True)
class Vectors:
    """Vectors of a language, whose operators work lane by lane.

    Attributes:
        type: of a scalar's type and the number of lanes.
        load: expression of a vector, given its lanes and a pointer to the first.
        store: statement that stores a vector, given its lanes, the vector, and a pointer.
    """

    type: Callable[[str, int], str]
    load: Callable[[int, str], str]
    store: Callable[[int, str, str], str]


@dataclass(frozen=True)
class Dialect:
    """One language.

    Attributes:
        name: for messages.
        types: scalar dtype → its type in registers; bool is the language's own, of any width.
        kernel: the words before a kernel's name, given its group of threads along x, y, z.
        pointer: the type of a buffer parameter, given element type, ``const`` or not, ``restrict`` or not.
        shared: the words before the type of memory that a group shares.
        function: the words before a helper's definition.
        index: thread tag → the expression of its index.
        barrier: the statement.
        functions: intrinsic → the language's function of float32 and float64, where they have one.
        int_functions: ``popcount`` and ``clz`` → helper's body for 32 and 64 bits, of argument ``x``.
        saturated: expression of a float cast to an integer dtype: toward zero, saturating, NaN gives 0.
        bits: expression of a value's bits as another type of that size, given the type's dtype and the value.
        infinity, nan: float32 constants.
        prelude: lines before everything else, given the dtypes that occur.
        native_half: whether float16 has arithmetic of its own here; if not, it is computed in float32.
        vectors: how vectors are written, where the language has them.
        half_helpers: definitions of ``cf_half_to_float`` and ``cf_float_to_half`` on 16 bits in a ushort.
    """

    name: str
    types: Mapping[str, str]
    kernel: Callable[[tuple[int, int, int]], str]
    pointer: Callable[[str, bool, bool], str]
    shared: str
    function: str
    index: Mapping[str, str]
    barrier: str
    functions: Mapping[str, str]
    int_functions: Mapping[str, str]
    saturated: Callable[[str, str], str]
    bits: Callable[[str, str], str]
    infinity: str
    nan: str
    prelude: Callable[[frozenset[str]], str]
    half_helpers: str
    native_half: bool = False
    vectors: Vectors | None = None
    reserved: frozenset[str] = field(default=frozenset())


_NAMES = """
exp exp2 exp10 log log2 log10 log1p sqrt rsqrt tanh erf sin cos tan asin acos atan sinh cosh asinh acosh atanh
floor ceil round trunc pow atan2 fmod hypot copysign nextafter fma
"""
_WORDS = """
auto break case char const continue default do double else enum extern float for goto if inline int long register
restrict return short signed sizeof static struct switch typedef union unsigned void volatile while bool true false
half uchar ushort uint ulong size_t kernel global local constant private __kernel __global __local barrier
get_group_id get_local_id get_global_id min max abs clamp mad mix step sign dot cross length distance normalize select
any all popcount clz rotate isnan isinf isfinite as_int as_uint as_float INFINITY NAN main event_t image2d_t sampler_t
complex imaginary class template this new delete operator namespace threadIdx blockIdx blockDim gridDim printf
vload_half vstore_half ldexp NULL M_PI asm __shared__ __global__ __device__ linux unix
"""

#: Functions of floats whose names and meaning C-like languages share.
C_FUNCTIONS = {name: name for name in _NAMES.split()} | {"nearbyint": "rint", "abs": "fabs"}

#: What ``call_extern`` may name of libm beyond the intrinsics.
C_EXTERN = frozenset(("expm1", "cbrt", "erfc", "tgamma", "lgamma", "rint", "fabs", "fmin", "fmax", "fdim", "remainder"))

#: Words that no identifier of a program may be.
C_RESERVED = frozenset(_WORDS.split()) | frozenset(C_FUNCTIONS.values()) | C_EXTERN
