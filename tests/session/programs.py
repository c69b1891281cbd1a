"""What the tests run: as script text, good functions and bad ones."""

PROGRAMS = """
from tvm.script import ir as I
from tvm.script import tir as T


@I.ir_module
class Module:
    @T.prim_func
    def add(a: T.handle, b: T.handle, c: T.handle):
        n = T.int64()
        A = T.match_buffer(a, (n,), "float32")
        B = T.match_buffer(b, (n,), "float32")
        C = T.match_buffer(c, (n,), "float32")
        for i in range(n):
            with T.block("c"):
                vi = T.axis.spatial(n, i)
                C[vi] = A[vi] + B[vi]

    @T.prim_func
    def scale(A: T.Buffer((4,), "float32"), factor: T.float32, C: T.Buffer((4,), "float32")):
        for i in range(4):
            with T.block("c"):
                vi = T.axis.spatial(4, i)
                C[vi] = A[vi] * factor

    @T.prim_func
    def increment(A: T.Buffer((4,), "int32")):
        for i in range(4):
            with T.block("a"):
                vi = T.axis.spatial(4, i)
                A[vi] = A[vi] + 1

    @T.prim_func
    def split(A: T.Buffer((4,), "int32"), B: T.Buffer((4,), "int32"), C: T.Buffer((4,), "int32")):
        for i in range(4):
            with T.block("b"):
                vi = T.axis.spatial(4, i)
                B[vi] = A[vi] + 1
        for i in range(4):
            with T.block("c"):
                vi = T.axis.spatial(4, i)
                C[vi] = A[vi] * 2

    @T.prim_func
    def empty():
        T.evaluate(0)

    @T.prim_func
    def divide(A: T.Buffer((4,), "int32"), divisor: T.int32, C: T.Buffer((4,), "int32")):
        for i in range(4):
            with T.block("c"):
                vi = T.axis.spatial(4, i)
                C[vi] = T.floordiv(A[vi], divisor)

    @T.prim_func
    def wipe(A: T.Buffer((4,), "uint8"), size: T.int64):
        T.evaluate(T.call_extern("handle", "memset", A.data, 0, size))

    @T.prim_func
    def forever(A: T.Buffer((1,), "int32")):
        while A[0] >= 0:
            A[0] = A[0] * 0

    @T.prim_func
    def hungry(A: T.Buffer((4,), "uint8")):
        big = T.alloc_buffer((17592186044416,), "uint8")
        for i in range(4):
            with T.block("b"):
                vi = T.axis.spatial(4, i)
                big[vi * 1000000000] = A[vi]
        for i in range(4):
            with T.block("a"):
                vi = T.axis.spatial(4, i)
                A[vi] = big[vi * 1000000000]
"""
