"""Small programs of every kind that primitives tell apart."""

from __future__ import annotations

from tests.schedule.programs import CHAIN, MATMUL, SYMBOLIC

#: Padding by a condition, a window that slides, an activation after it.
CONVOLUTION = """
@I.ir_module
class Module:
    @T.prim_func
    def main(X: T.Buffer((2, 6, 6), "float32"), W: T.Buffer((3, 2, 3, 3), "float32"),
             Y: T.Buffer((3, 6, 6), "float32")):
        pad = T.alloc_buffer((2, 8, 8), "float32")
        conv = T.alloc_buffer((3, 6, 6), "float32")
        for c, h, w in T.grid(2, 8, 8):
            with T.block("pad"):
                vc, vh, vw = T.axis.remap("SSS", [c, h, w])
                pad[vc, vh, vw] = T.if_then_else(
                    1 <= vh and vh < 7 and 1 <= vw and vw < 7, X[vc, vh - 1, vw - 1], T.float32(0))
        for o, h, w, c, kh, kw in T.grid(3, 6, 6, 2, 3, 3):
            with T.block("conv"):
                vo, vh, vw, vc, vkh, vkw = T.axis.remap("SSSRRR", [o, h, w, c, kh, kw])
                with T.init():
                    conv[vo, vh, vw] = T.float32(0)
                conv[vo, vh, vw] = conv[vo, vh, vw] + pad[vc, vh + vkh, vw + vkw] * W[vo, vc, vkh, vkw]
        for o, h, w in T.grid(3, 6, 6):
            with T.block("relu"):
                vo, vh, vw = T.axis.remap("SSS", [o, h, w])
                Y[vo, vh, vw] = T.max(conv[vo, vh, vw], T.float32(0))
"""

#: Reductions whose results are read for every element.
SOFTMAX = """
@I.ir_module
class Module:
    @T.prim_func
    def main(X: T.Buffer((5, 12), "float32"), Y: T.Buffer((5, 12), "float32")):
        largest = T.alloc_buffer((5,), "float32")
        power = T.alloc_buffer((5, 12), "float32")
        total = T.alloc_buffer((5,), "float32")
        for i, k in T.grid(5, 12):
            with T.block("largest"):
                vi, vk = T.axis.remap("SR", [i, k])
                with T.init():
                    largest[vi] = T.min_value("float32")
                largest[vi] = T.max(largest[vi], X[vi, vk])
        for i, j in T.grid(5, 12):
            with T.block("power"):
                vi, vj = T.axis.remap("SS", [i, j])
                power[vi, vj] = T.exp(X[vi, vj] - largest[vi])
        for i, k in T.grid(5, 12):
            with T.block("total"):
                vi, vk = T.axis.remap("SR", [i, k])
                with T.init():
                    total[vi] = T.float32(0)
                total[vi] = total[vi] + power[vi, vk]
        for i, j in T.grid(5, 12):
            with T.block("Y"):
                vi, vj = T.axis.remap("SS", [i, j])
                Y[vi, vj] = power[vi, vj] / total[vi]
"""

#: Packed for dot products, symbolic in one dimension.
BYTES = """
@I.ir_module
class Module:
    @T.prim_func
    def main(a: T.handle, B: T.Buffer((2, 2, 32), "int8"), c: T.handle):
        m = T.int32()
        A = T.match_buffer(a, (m, 8), "uint8")
        C = T.match_buffer(c, (m, 16), "int32")
        for i, jo, ko, ji, ki in T.grid(m, 2, 2, 8, 4):
            with T.block("C"):
                vi = T.axis.spatial(m, i)
                vj = T.axis.spatial(16, jo * 8 + ji)
                vk = T.axis.reduce(8, ko * 4 + ki)
                with T.init():
                    C[vi, vj] = 0
                C[vi, vj] = C[vi, vj] + T.Cast("int32", A[vi, vk]) * T.Cast(
                    "int32", B[vj // 8, vk // 4, vj % 8 * 4 + vk % 4])
"""

#: Tiles that do not divide, a transposed read, and an update in place.
IMPERFECT = """
@I.ir_module
class Module:
    @T.prim_func
    def main(A: T.Buffer((7, 10), "int32"), B: T.Buffer((10, 7), "int32")):
        C = T.alloc_buffer((10, 7), "int32")
        for i0, j0, i1, j1 in T.grid(4, 3, 3, 3):
            with T.block("C"):
                vi = T.axis.spatial(10, i0 * 3 + i1)
                vj = T.axis.spatial(7, j0 * 3 + j1)
                T.where(i0 * 3 + i1 < 10 and j0 * 3 + j1 < 7)
                C[vi, vj] = A[vj, vi] * 3
        for i, j in T.grid(10, 7):
            with T.block("B"):
                vi, vj = T.axis.remap("SS", [i, j])
                B[vi, vj] = C[vi, vj] - C[9 - vi, vj]
        for i, j in T.grid(10, 7):
            with T.block("twice"):
                vi, vj = T.axis.remap("SS", [i, j])
                B[vi, vj] = B[vi, vj] * 2
"""

PROGRAMS = {
    "matmul": MATMUL,
    "chain": CHAIN,
    "symbolic": SYMBOLIC,
    "convolution": CONVOLUTION,
    "softmax": SOFTMAX,
    "bytes": BYTES,
    "imperfect": IMPERFECT,
}
