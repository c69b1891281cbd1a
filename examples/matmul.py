# A matrix product, C = A · B, of 256 × 256 float32 matrices.
#
#     crossfarm run examples/matmul.py
#     crossfarm bench examples/matmul.py --select arch=aarch64
from crossfarm.script import ir as I
from crossfarm.script import tir as T


@I.ir_module
class Matmul:
    @T.prim_func
    def main(
        A: T.Buffer((256, 256), "float32"),
        B: T.Buffer((256, 256), "float32"),
        C: T.Buffer((256, 256), "float32"),
    ):
        T.func_attr({"tir.noalias": True})
        # rows, then the summed axis, then columns: the innermost loop runs along rows of B and C
        for i, k, j in T.grid(256, 256, 256):
            with T.block("C"):
                vi, vj, vk = T.axis.remap("SSR", [i, j, k])
                T.reads(A[vi, vk], B[vk, vj])
                T.writes(C[vi, vj])
                with T.init():
                    C[vi, vj] = T.float32(0)
                C[vi, vj] = C[vi, vj] + A[vi, vk] * B[vk, vj]
