from crossfarm.script import ir as I, tir as T


@I.ir_module
class Matmul:
    @T.prim_func
    def main(A: T.Buffer((64, 48), "float32"), B: T.Buffer((48, 64), "float32"), bias: T.Buffer((64,), "float32"), C: T.Buffer((64, 64), "float32")):
        T.func_attr({"tir.noalias": True})
        acc = T.alloc_buffer((64, 64), "float32")
        for i_0 in T.parallel(8):
            for i_1, j_0 in T.grid(8, 4):
                for j_1 in T.vectorized(16):
                    with T.block("init"):
                        v_i = T.axis.spatial(64, i_0 * 8 + i_1)
                        v_j = T.axis.spatial(64, j_0 * 16 + j_1)
                        T.reads()
                        T.writes(acc[v_i, v_j])
                        acc[v_i, v_j] = T.float32(0.0)
                for k_0 in range(12):
                    for k_1 in T.unroll(4):
                        for j_1 in T.vectorized(16):
                            with T.block("update"):
                                v_i = T.axis.spatial(64, i_0 * 8 + i_1)
                                v_j = T.axis.spatial(64, j_0 * 16 + j_1)
                                v_k = T.axis.reduce(48, k_0 * 4 + k_1)
                                T.reads(acc[v_i, v_j], A[v_i, v_k], B[v_k, v_j])
                                T.writes(acc[v_i, v_j])
                                acc[v_i, v_j] = acc[v_i, v_j] + A[v_i, v_k] * B[v_k, v_j]
        for i, j in T.grid(64, 64):
            with T.block("relu"):
                v_i, v_j = T.axis.remap("SS", [i, j])
                T.reads(acc[v_i, v_j], bias[v_j])
                T.writes(C[v_i, v_j])
                T.block_attr({"schedule_rule": "none"})
                C[v_i, v_j] = T.max(acc[v_i, v_j] + bias[v_j], T.float32(0.0))
