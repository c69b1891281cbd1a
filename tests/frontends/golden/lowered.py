from crossfarm.script import ir as I, tir as T


@I.ir_module
class Lowered:
    @T.prim_func
    def main(A: T.Buffer((256,), "float32"), B: T.Buffer((256,), "float32"), steps: T.int32):
        T.func_attr({"tir.noalias": True})
        assert steps > 0, "steps must be positive"
        X = T.allocate([16], "float32", "local")
        for i in T.serial(16, annotations={"pragma_unroll": 1}):
            base: T.int32 = i * 16
            X[T.Ramp(0, 1, 16)] = A[T.Ramp(base, 1, 16)]
            with T.LetStmt(T.exp(X[0])) as first:
                for k in T.unroll(16):
                    X[k] = T.Select(k % 2 == 0, X[k] * first, T.pow(X[k], T.float32(2.0)))
            count = T.allocate([1], "int32", "local")
            count[0] = 0
            while count[0] < steps:
                X[T.Ramp(0, 1, 16)] = X[T.Ramp(0, 1, 16)] * T.Broadcast(T.float32(0.5), 16)
                count[0] = count[0] + 1
            T.attr("X", "pragma_note", "stored last")
            B[T.Ramp(base, 1, 16)] = X[T.Ramp(0, 1, 16)]
