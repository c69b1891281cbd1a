"""Convolutions as users write them, of any shape, for the rules that schedule them."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Convolution:
    """``Y[n, f, y, x]``; ``batch`` may be the text of a symbolic size.

    Attributes:
        group: how many filters see the same channels; 0 for all.
        fused: bias and relu follow.
    """

    channels: int = 5
    height: int = 9
    width: int = 11
    filters: int = 8
    kernel: tuple[int, int] = (3, 3)
    stride: int = 1
    dilation: int = 1
    pad: int = 1
    group: int = 0
    batch: int | str = 1
    fused: bool = False
    dtype: str = "float32"

    @property
    def out(self) -> tuple[int, int]:
        reach = [(k - 1) * self.dilation for k in self.kernel]
        height, width = self.height + 2 * self.pad - reach[0], self.width + 2 * self.pad - reach[1]
        return (height - 1) // self.stride + 1, (width - 1) // self.stride + 1

    def text(self) -> str:
        """The module; its parameters are X, W, with ``fused`` also B, and Y."""
        groups = self.filters // self.group if self.group else 1
        per_group = self.channels // groups
        (oh, ow), (kh, kw), p = self.out, self.kernel, self.pad
        ph, pw = self.height + 2 * p, self.width + 2 * p
        channel = f"v_f // {self.group} * {per_group} + v_c" if self.group > 1 else "v_f" if self.group else "v_c"
        slide = [f"v_{a} * {self.stride} + v_k{a} * {self.dilation}" for a in "yx"]
        zero = f"T.{self.dtype}(0)"
        inside = f"{p} <= v_y and v_y < {self.height + p} and {p} <= v_x and v_x < {self.width + p}"
        result = "conv" if self.fused else "Y"
        sums = [("c", per_group), ("ky", kh), ("kx", kw)][int(self.group == 1) :]
        loops = ["n", "f", "y", "x", *(name for name, _ in sums)]
        extents = [str(self.batch), str(self.filters), str(oh), str(ow), *(str(size) for _, size in sums)]
        axes = ", ".join(f"v_{name}" for name in loops)
        weight = "W[v_f, 0, v_ky, v_kx]" if self.group == 1 else "W[v_f, v_c, v_ky, v_kx]"
        weights = f"T.Buffer(({self.filters}, {per_group}, {kh}, {kw}), '{self.dtype}')"
        bias = f"B: T.Buffer(({self.filters},), '{self.dtype}'), " if self.fused else ""
        shapes = {
            "X": f"({self.batch}, {self.channels}, {self.height}, {self.width})",
            "Y": f"({self.batch}, {self.filters}, {oh}, {ow})",
            "padded": f"({self.batch}, {self.channels}, {ph}, {pw})",
        }
        lines = [
            "from crossfarm.script import ir as I, tir as T",
            "",
            "@I.ir_module",
            "class Module:",
            "    @T.prim_func",
            f"    def main(X_: T.handle, W: {weights}, {bias}Y_: T.handle):",
            '        T.func_attr({"tir.noalias": True})',
            *([f"        {self.batch} = T.int32()"] if isinstance(self.batch, str) else []),
            f"        X = T.match_buffer(X_, {shapes['X']}, '{self.dtype}')",
            f"        Y = T.match_buffer(Y_, {shapes['Y']}, '{self.dtype}')",
            f"        padded = T.alloc_buffer({shapes['padded']}, '{self.dtype}')",
            *([f"        conv = T.alloc_buffer({shapes['Y']}, '{self.dtype}')"] if self.fused else []),
            f"        for n, c, y, x in T.grid({self.batch}, {self.channels}, {ph}, {pw}):",
            "            with T.block('padded'):",
            "                v_n, v_c, v_y, v_x = T.axis.remap('SSSS', [n, c, y, x])",
            "                padded[v_n, v_c, v_y, v_x] = T.if_then_else(",
            f"                    {inside}, X[v_n, v_c, v_y - {p}, v_x - {p}], {zero})",
            f"        for {', '.join(loops)} in T.grid({', '.join(extents)}):",
            "            with T.block('conv'):",
            f"                {axes} = T.axis.remap('SSSS{'R' * len(sums)}', [{', '.join(loops)}])",
            "                with T.init():",
            f"                    {result}[v_n, v_f, v_y, v_x] = {zero}",
            f"                {result}[v_n, v_f, v_y, v_x] = {result}[v_n, v_f, v_y, v_x] + "
            f"padded[v_n, {channel}, {slide[0]}, {slide[1]}] * {weight}",
        ]
        if self.fused:
            lines += [
                f"        for n, f, y, x in T.grid({self.batch}, {self.filters}, {oh}, {ow}):",
                "            with T.block('relu'):",
                "                v_n, v_f, v_y, v_x = T.axis.remap('SSSS', [n, f, y, x])",
                f"                Y[v_n, v_f, v_y, v_x] = T.max(conv[v_n, v_f, v_y, v_x] + B[v_f], {zero})",
            ]
        return "\n".join(lines) + "\n"
