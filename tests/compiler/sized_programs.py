"""Strategies: programs of each family, of sizes that divide nothing, and sizes to call them with."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from hypothesis import strategies as st

from crossfarm import te
from tests.compiler import image_programs as images
from tests.compiler import tensor_programs as programs
from tests.compiler.tensor_programs import Program

#: The sizes of each call, by name.
Calls = list[dict[str, int]]
Sized = tuple[Program, Calls]
#: Sizes of one vector or tile, one less and one more, primes, and ones.
SIZES = st.one_of(st.integers(1, 70), st.sampled_from([1, 2, 3, 7, 8, 9, 15, 16, 17, 31, 32, 33, 47, 48, 49, 64, 65]))
SMALL = st.integers(1, 9)


@st.composite
def sized(draw: st.DrawFn, *names: str, sizes: st.SearchStrategy[int] = SIZES) -> tuple[list[Any], Calls]:
    """A size for each name, a number or known only at the call, and three calls, one of them with ones."""
    chosen: list[Any] = []
    calls: list[dict[str, int]] = [{}, {}, {}]
    for name in names:
        if draw(st.booleans()):
            chosen.append(draw(sizes))
        else:
            chosen.append(te.var(name))
            for call, value in zip(calls, (draw(sizes), 1, draw(sizes))):
                call[name] = value
    return chosen, calls if any(calls) else [{}]


def shapes(rank: int, most: int = 70) -> st.SearchStrategy[tuple[list[Any], Calls]]:
    return sized(*"abcde"[:rank], sizes=SIZES.filter(lambda size: size <= most))


@st.composite
def matmuls(draw: st.DrawFn) -> Sized:
    (m, n, k), calls = draw(sized("m", "n", "k"))
    batch = draw(st.sampled_from([(), (), (1,), (3,), (2, 3)]))
    dtype, out = draw(
        st.sampled_from(
            [("float32", "")] * 6
            + [("float64", ""), ("float16", ""), ("bfloat16", ""), ("float16", "float32"), ("bfloat16", "float32")]
            + [("int8", "int32"), ("uint8", "int32"), ("int32", ""), ("int64", "")]
        )
    )
    steps = ["", "bias", "relu", "bias+relu"] + (["bias+gelu", "gelu"] if (out or dtype) == "float32" else [])
    made = programs.matmul(
        m, n, k, layout=draw(st.sampled_from(["NN", "NT", "TN", "TT"])), batch=batch, shared=draw(st.booleans()),
        dtype=dtype, out=out, epilogue=draw(st.sampled_from(steps)),
    )  # fmt: skip
    return made, calls


def _window(draw: st.DrawFn) -> tuple[tuple[int, int], dict[str, Any], int]:
    """A kernel, its options, and the smallest image that it has a result for."""
    kernel = draw(st.sampled_from([(1, 1), (3, 3), (5, 5), (7, 7), (3, 1), (1, 5), (2, 2)]))
    options = {
        "stride": draw(st.integers(1, 3)),
        "padding": draw(st.integers(0, 3)),
        "dilation": draw(st.sampled_from([1, 1, 2])),
    }
    reach = options["dilation"] * (max(kernel) - 1) + 1
    return kernel, options, max(reach - 2 * options["padding"], 1)


@st.composite
def convolutions(draw: st.DrawFn) -> Sized:
    kernel, options, least = _window(draw)
    (height, width), calls = draw(sized("h", "w", sizes=st.integers(least, least + 24)))
    calls = [{name: max(value, least) for name, value in call.items()} for call in calls]
    groups = draw(st.sampled_from([1, 1, 1, 2, 3]))
    channels, filters = (groups * draw(SMALL) for _ in range(2))
    made = images.convolution(
        (draw(st.integers(1, 3)), channels, height, width), filters, kernel, **options, groups=groups,
        dtype=draw(st.sampled_from(["float32", "float32", "float64", "float16"])),
        epilogue=draw(st.sampled_from(["", "bias", "bias+relu"])),
    )  # fmt: skip
    return made, calls


@st.composite
def depthwise(draw: st.DrawFn) -> Sized:
    kernel, options, least = _window(draw)
    (height, width), calls = draw(sized("h", "w", sizes=st.integers(least, least + 40)))
    calls = [{name: max(value, least) for name, value in call.items()} for call in calls]
    image = (draw(st.integers(1, 2)), draw(SMALL), height, width)
    return images.depthwise(image, draw(st.integers(1, 3)), kernel, **options), calls


@st.composite
def pools(draw: st.DrawFn) -> Sized:
    kernel, options, least = _window(draw)
    del options["dilation"]
    least = max(kernel[0] - 2 * options["padding"], kernel[1] - 2 * options["padding"], 1)
    (height, width), calls = draw(sized("h", "w", sizes=st.integers(least, least + 40)))
    calls = [{name: max(value, least) for name, value in call.items()} for call in calls]
    image = (draw(st.integers(1, 2)), draw(SMALL), height, width)
    return images.pool(image, kernel, kind=draw(st.sampled_from(["max", "mean"])), **options), calls


@st.composite
def rows(draw: st.DrawFn) -> Sized:
    count = draw(st.integers(0, 2))
    (*outer, length), calls = draw(shapes(count + 1))
    kind = draw(st.sampled_from(["softmax", "log softmax", "layer norm", "rms norm"]))
    if "norm" in kind:
        return programs.norm(tuple(outer), draw(SIZES), centered=kind == "layer norm"), calls
    dtype = draw(st.sampled_from(["float32", "float32", "float64"]))
    return programs.softmax(tuple(outer), length, log=kind == "log softmax", dtype=dtype), calls


@st.composite
def reductions(draw: st.DrawFn) -> Sized:
    rank = draw(st.integers(1, 4))
    shape, calls = draw(shapes(rank, most=70 if rank < 4 else 20))
    kind = draw(st.sampled_from(["sum", "sum", "max", "min", "prod", "argmax", "argmin"]))
    most = 1 if kind.startswith("arg") else rank
    axes = sorted(draw(st.sets(st.integers(0, rank - 1), min_size=1, max_size=most)))
    dtypes = {"prod": ["float32", "int32"], "sum": ["float32", "float64", "float16", "int32", "int64"]}
    dtype = draw(st.sampled_from(dtypes.get(kind, ["float32", "float64", "float16", "int8", "int32"])))
    return programs.reduction(tuple(shape), axes, kind=kind, dtype=dtype), calls


@st.composite
def movements(draw: st.DrawFn) -> Sized:
    kind = draw(st.sampled_from(["transpose", "transpose", "concat", "gather", "slice"]))
    if kind == "transpose":
        rank = draw(st.integers(2, 4))
        shape, calls = draw(shapes(rank, most=70 if rank < 4 else 20))
        dtype = draw(st.sampled_from(["float32", "float64", "int8", "float16", "bool"]))
        return programs.transposed(tuple(shape), draw(st.permutations(range(rank))), dtype), calls
    (a, b, c), calls = draw(shapes(3))
    if kind == "concat":
        return programs.concatenated(a, b, c), calls
    if kind == "slice":
        return programs.sliced(a, b, draw(st.integers(1, 4))), calls
    return programs.gathered(draw(st.integers(3, 70)), b, c), calls


@st.composite
def maps(draw: st.DrawFn) -> Sized:
    rank = draw(st.integers(1, 4))
    shape, calls = draw(shapes(rank, most=70 if rank < 4 else 20))
    if draw(st.booleans()):
        return programs.chain(tuple(shape), draw(st.sampled_from(["float32", "float64", "float16", "int32"]))), calls
    floats = ["float16", "bfloat16", "float32", "float64"]
    dtype = draw(st.sampled_from([*floats, "int8", "uint8", "int32", "bool"]))
    to = draw(st.sampled_from([*floats, "int32", "int64", *([] if dtype in floats else ["uint8"])]))
    return programs.converted(tuple(shape), dtype, to), calls


@st.composite
def several(draw: st.DrawFn) -> Sized:
    (a, b), calls = draw(shapes(2))
    return programs.statistics(a, b), calls


FAMILIES: dict[str, Callable[[], st.SearchStrategy[Sized]]] = {
    "matmul": matmuls,
    "convolution": convolutions,
    "depthwise convolution": depthwise,
    "pooling": pools,
    "softmax and norms": rows,
    "reductions": reductions,
    "movement": movements,
    "maps": maps,
    "several results": several,
}
