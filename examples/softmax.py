# The softmax of each row of any float32 matrix: its sizes are the arguments'.
#
#     crossfarm run examples/softmax.py --size n=64 --size m=1000
from crossfarm.script import ir as I
from crossfarm.script import tir as T


@I.ir_module
class Softmax:
    @T.prim_func
    def main(var_x: T.handle, var_y: T.handle):
        T.func_attr({"tir.noalias": True})
        n, m = T.int64(), T.int64()
        x = T.match_buffer(var_x, (n, m), "float32")
        y = T.match_buffer(var_y, (n, m), "float32")
        largest = T.alloc_buffer((n,), "float32")
        power = T.alloc_buffer((n, m), "float32")
        total = T.alloc_buffer((n,), "float32")
        for i, j in T.grid(n, m):
            with T.block("largest"):
                vi, vj = T.axis.remap("SR", [i, j])
                T.reads(x[vi, vj])
                T.writes(largest[vi])
                with T.init():
                    largest[vi] = T.float32("-inf")
                largest[vi] = T.max(largest[vi], x[vi, vj])
        # the largest of a row is taken off before exp, which could overflow otherwise
        for i, j in T.grid(n, m):
            with T.block("power"):
                vi, vj = T.axis.remap("SS", [i, j])
                T.reads(x[vi, vj], largest[vi])
                T.writes(power[vi, vj])
                power[vi, vj] = T.exp(x[vi, vj] - largest[vi])
        for i, j in T.grid(n, m):
            with T.block("total"):
                vi, vj = T.axis.remap("SR", [i, j])
                T.reads(power[vi, vj])
                T.writes(total[vi])
                with T.init():
                    total[vi] = T.float32(0)
                total[vi] = total[vi] + power[vi, vj]
        for i, j in T.grid(n, m):
            with T.block("y"):
                vi, vj = T.axis.remap("SS", [i, j])
                T.reads(power[vi, vj], total[vi])
                T.writes(y[vi, vj])
                y[vi, vj] = power[vi, vj] / total[vi]
