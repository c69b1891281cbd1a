# from tvm.script import ir as I
# from tvm.script import tirx as T
# What every side of the benchmark builds and runs: an addition of 256 KiB tensors, and a function that does nothing.
# It is text for two compilers, in the dialect that both read, and is never imported.


@I.ir_module(s_tir=True)
class Module:
    @T.prim_func(s_tir=True)
    def add(A: T.Buffer((65536,), "float32"), B: T.Buffer((65536,), "float32"), C: T.Buffer((65536,), "float32")):
        for i in range(65536):
            with T.sblock("C"):
                vi = T.axis.spatial(65536, i)
                C[vi] = A[vi] + B[vi]

    @T.prim_func(s_tir=True)
    def empty():
        T.evaluate(0)
