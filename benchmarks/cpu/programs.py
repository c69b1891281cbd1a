"""The programs that are compared, as a user writes them: plain loops and blocks, no schedule.

Text for two compilers, in the dialect that both read. Each function gives a module whose one function is ``main``: its
inputs first, its output last.
"""

from __future__ import annotations

from collections.abc import Sequence

#: Name, extent and kind (S for a parallel axis, R for a summed one) of a loop.
Axis = tuple[str, int, str]

_SHIFT = "    "


def matmul(batch: int, m: int, n: int, k: int) -> str:
    """C[b, i, j] = Σ A[b, i, k] · B[b, k, j]; without the batch axis where it is 1."""
    axes: list[Axis] = [("i", m, "S"), ("j", n, "S"), ("k", k, "R")]
    if batch == 1:
        body = _sum("C", axes, "C[vi, vj]", "A[vi, vk] * B[vk, vj]")
        return _module([("A", (m, k)), ("B", (k, n)), ("C", (m, n))], body)
    body = _sum("C", [("b", batch, "S"), *axes], "C[vb, vi, vj]", "A[vb, vi, vk] * B[vb, vk, vj]")
    return _module([("A", (batch, m, k)), ("B", (batch, k, n)), ("C", (batch, m, n))], body)


def conv2d(channels: int, height: int, out_channels: int, kernel: int, stride: int, groups: int) -> str:
    """A square convolution of an NCHW image with "same" padding, weights OIHW; depthwise: a group a channel."""
    pad, out = kernel // 2, -(-height // stride)
    padded = height + 2 * pad
    per_group, group_out = channels // groups, out_channels // groups
    source, body, allocated = "X", [], []
    if pad:
        source = "padded"
        allocated = [("padded", (1, channels, padded, padded))]
        inside = f"{pad} <= vy and vy < {height + pad} and {pad} <= vx and vx < {height + pad}"
        axes: list[Axis] = [("n", 1, "S"), ("c", channels, "S"), ("y", padded, "S"), ("x", padded, "S")]
        value = f"T.if_then_else({inside}, X[vn, vc, vy - {pad}, vx - {pad}], T.float32(0))"
        body += _map("padded", axes, "padded[vn, vc, vy, vx]", value)
    channel = "vc" if groups == 1 else "vf" if per_group == group_out == 1 else f"vf // {group_out} * {per_group} + vc"
    body += _sum(
        "conv",
        [
            ("n", 1, "S"), ("f", out_channels, "S"), ("y", out, "S"), ("x", out, "S"),
            ("c", per_group, "R"), ("ky", kernel, "R"), ("kx", kernel, "R"),
        ],
        "Y[vn, vf, vy, vx]",
        f"{source}[vn, {channel}, vy * {stride} + vky, vx * {stride} + vkx] * W[vf, vc, vky, vkx]",
    )  # fmt: skip
    parameters = [
        ("X", (1, channels, height, height)),
        ("W", (out_channels, per_group, kernel, kernel)),
        ("Y", (1, out_channels, out, out)),
    ]
    return _module(parameters, body, allocated)


def softmax(rows: int, columns: int) -> str:
    """Of each row, the largest element taken off first."""
    i, j, k = _rows(rows, columns)
    return _module(
        [("X", (rows, columns)), ("Y", (rows, columns))],
        [
            *_reduce("largest", [i, k], "largest[vi]", 'T.float32("-inf")', "T.max(largest[vi], X[vi, vk])"),
            *_map("power", [i, j], "power[vi, vj]", "T.exp(X[vi, vj] - largest[vi])"),
            *_sum("total", [i, k], "total[vi]", "power[vi, vk]"),
            *_map("Y", [i, j], "Y[vi, vj]", "power[vi, vj] / total[vi]"),
        ],
        [("largest", (rows,)), ("power", (rows, columns)), ("total", (rows,))],
    )


def layer_norm(rows: int, columns: int) -> str:
    """Of each row, with a scale W and a shift B for each column; 1e-5 is added to the variance."""
    i, j, k = _rows(rows, columns)
    count = f"T.float32({columns})"
    return _module(
        [("X", (rows, columns)), ("W", (columns,)), ("B", (columns,)), ("Y", (rows, columns))],
        [
            *_sum("total", [i, k], "total[vi]", "X[vi, vk]"),
            *_map("mean", [i], "mean[vi]", f"total[vi] / {count}"),
            *_sum("squares", [i, k], "squares[vi]", "(X[vi, vk] - mean[vi]) * (X[vi, vk] - mean[vi])"),
            *_map(
                "Y",
                [i, j],
                "Y[vi, vj]",
                f"(X[vi, vj] - mean[vi]) * T.rsqrt(squares[vi] / {count} + T.float32(1e-05)) * W[vj] + B[vj]",
            ),
        ],
        [("total", (rows,)), ("mean", (rows,)), ("squares", (rows,))],
    )


def gelu(rows: int, columns: int) -> str:
    """The exact form, with erf."""
    i, j, _ = _rows(rows, columns)
    value = "X[vi, vj] * (T.float32(0.5) + T.erf(X[vi, vj] * T.float32(0.70710678118654757)) * T.float32(0.5))"
    return _module([("X", (rows, columns)), ("Y", (rows, columns))], _map("Y", [i, j], "Y[vi, vj]", value))


def blend(rows: int, columns: int) -> str:
    """Y = ¾ X + ¼ Z."""
    i, j, _ = _rows(rows, columns)
    shape = (rows, columns)
    value = "X[vi, vj] * T.float32(0.75) + Z[vi, vj] * T.float32(0.25)"
    return _module([("X", shape), ("Z", shape), ("Y", shape)], _map("Y", [i, j], "Y[vi, vj]", value))


def transpose(rows: int, columns: int) -> str:
    """Y[j, i] = X[i, j]."""
    body = _map("Y", [("j", columns, "S"), ("i", rows, "S")], "Y[vj, vi]", "X[vi, vj]")
    return _module([("X", (rows, columns)), ("Y", (columns, rows))], body)


def sum_of(axis: str, rows: int, columns: int) -> str:
    """Sums over the ``last`` axis, the ``first`` one, or ``all``."""
    i, j, k = _rows(rows, columns)
    axes, index, shape = {
        "last": ([i, k], "Y[vi]", (rows,)),
        "first": ([j, ("k", rows, "R")], "Y[vj]", (columns,)),
        "all": ([("i", rows, "R"), k], "Y[0]", (1,)),
    }[axis]
    element = "X[vk, vj]" if axis == "first" else "X[vi, vk]"
    return _module([("X", (rows, columns)), ("Y", shape)], _sum("Y", axes, index, element))


def _rows(rows: int, columns: int) -> tuple[Axis, Axis, Axis]:
    """The axes i and j of a matrix, and j as a summed one, k."""
    return ("i", rows, "S"), ("j", columns, "S"), ("k", columns, "R")


def _module(
    parameters: Sequence[tuple[str, tuple[int, ...]]],
    body: Sequence[str],
    allocated: Sequence[tuple[str, tuple[int, ...]]] = (),
) -> str:
    arguments = ", ".join(f'{name}: T.Buffer({shape}, "float32")' for name, shape in parameters)
    lines = [
        'T.func_attr({"tirx.noalias": True})',
        *(f"{name} = T.sblock_alloc_buffer({shape})" for name, shape in allocated),
        *body,
    ]
    return (
        "# from tvm.script import ir as I\n# from tvm.script import tirx as T\n\n\n@I.ir_module\nclass Module:\n"
        f"    @T.prim_func(s_tir=True)\n    def main({arguments}):\n"
        + "".join(f"{_SHIFT * 2}{line}\n" for line in lines)
    )


def _map(name: str, axes: Sequence[Axis], element: str, value: str) -> list[str]:
    return _block(name, axes, [f"{element} = {value}"])


def _sum(name: str, axes: Sequence[Axis], element: str, value: str) -> list[str]:
    return _reduce(name, axes, element, "T.float32(0)", f"{element} + {value}")


def _reduce(name: str, axes: Sequence[Axis], element: str, first: str, value: str) -> list[str]:
    return _block(name, axes, ["with T.init():", f"{_SHIFT}{element} = {first}", f"{element} = {value}"])


def _block(name: str, axes: Sequence[Axis], body: Sequence[str]) -> list[str]:
    """A block in a nest of its own; each axis NAME is vNAME inside of it."""
    names, extents, kinds = zip(*axes)
    if len(axes) == 1:
        head = f"for {names[0]} in range({extents[0]}):"
        bind = f"v{names[0]} = T.axis.{'spatial' if kinds[0] == 'S' else 'reduce'}({extents[0]}, {names[0]})"
    else:
        head = f"for {', '.join(names)} in T.grid({', '.join(map(str, extents))}):"
        variables = ", ".join(f"v{name}" for name in names)
        bind = f'{variables} = T.axis.remap("{"".join(kinds)}", [{", ".join(names)}])'
    return [
        head,
        f'{_SHIFT}with T.sblock("{name}"):',
        *(f"{_SHIFT * 2}{line}" for line in (bind, *body)),
    ]
