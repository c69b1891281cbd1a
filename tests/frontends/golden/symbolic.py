from crossfarm.script import ir as I, tir as T


@I.ir_module
class Symbolic:
    I.module_attrs({"origin": "golden"})

    @T.prim_func
    def row_sums(var_A: T.handle, var_C: T.handle):
        n = T.int64()
        m = T.int64()
        stride = T.int64()
        A_elem_offset = T.int64()
        A = T.match_buffer(var_A, (n, m), "float16", strides=(stride, 1), elem_offset=A_elem_offset)
        C = T.match_buffer(var_C, (n,), "float32")
        for i, k in T.grid(n, m):
            with T.block("sum"):
                v_i, v_k = T.axis.remap("SR", [i, k])
                T.reads(A[v_i, v_k])
                T.writes(C[v_i])
                with T.init():
                    C[v_i] = T.float32(0.0)
                C[v_i] = C[v_i] + T.Cast("float32", A[v_i, v_k])

    @T.prim_func(private=True)
    def tiles(A: T.Buffer((64, 64), "int8"), n: T.int32, B: T.Buffer((64, 64), "int32")):
        for i, j in T.grid(16, 16):
            with T.block("tile"):
                v_i, v_j = T.axis.remap("SS", [i, j])
                T.where(i * 4 + 3 < n)
                T.reads(A[v_i * 4:v_i * 4 + 4, v_j * 4:v_j * 4 + 4])
                T.writes(B[v_i * 4:v_i * 4 + 4, v_j * 4:v_j * 4 + 4])
                X = T.alloc_buffer((4, 4), "int32", scope="local")
                s = T.int32()
                V_elem_offset = T.int32()
                V = T.match_buffer(A[v_i * 4:v_i * 4 + 4, v_j * 4:v_j * 4 + 4], (4, 4), "int8", strides=(s, 1), elem_offset=V_elem_offset, scope="global")
                for y, x in T.grid(4, 4):
                    with T.block("widen"):
                        v_y, v_x = T.axis.remap("SS", [y, x])
                        T.reads(V[v_y, v_x])
                        T.writes(X[v_y, v_x])
                        X[v_y, v_x] = T.Cast("int32", V[v_y, v_x])
                for y, x in T.grid(4, 4):
                    with T.block("store"):
                        v_y = T.axis.spatial(4, y)
                        v_x = T.axis.spatial(4, 3 - x)
                        T.reads(X[v_y, v_x])
                        T.writes(B[v_i * 4 + v_y, v_j * 4 + v_x])
                        if v_x < 2:
                            B[v_i * 4 + v_y, v_j * 4 + v_x] = X[v_y, v_x]
                        elif v_x == 2:
                            B[v_i * 4 + v_y, v_j * 4 + v_x] = X[v_y, v_x] * -1
                        else:
                            B[v_i * 4 + v_y, v_j * 4 + v_x] = T.if_then_else(v_y < 2, 0, X[v_y, v_x] << 1)
