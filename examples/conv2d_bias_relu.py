# A 3 × 3 convolution with padding 1, then a bias for each output channel, then relu. Layout NCHW, float32.
#
#     crossfarm run examples/conv2d_bias_relu.py
from crossfarm.script import ir as I
from crossfarm.script import tir as T


@I.ir_module
class Conv2dBiasRelu:
    @T.prim_func
    def main(
        data: T.Buffer((1, 16, 56, 56), "float32"),
        weight: T.Buffer((32, 16, 3, 3), "float32"),
        bias: T.Buffer((32,), "float32"),
        out: T.Buffer((1, 32, 56, 56), "float32"),
    ):
        T.func_attr({"tir.noalias": True})
        padded = T.alloc_buffer((1, 16, 58, 58), "float32")
        conv = T.alloc_buffer((1, 32, 56, 56), "float32")
        for n, c, y, x in T.grid(1, 16, 58, 58):
            with T.block("padded"):
                vn, vc, vy, vx = T.axis.remap("SSSS", [n, c, y, x])
                T.reads(data[vn, vc, vy - 1, vx - 1])
                T.writes(padded[vn, vc, vy, vx])
                padded[vn, vc, vy, vx] = T.if_then_else(
                    vy >= 1 and vy < 57 and vx >= 1 and vx < 57, data[vn, vc, vy - 1, vx - 1], T.float32(0)
                )
        # the summed axes outside of y and x: the innermost loop runs along rows of the image
        for n, f, c, ky, kx, y, x in T.grid(1, 32, 16, 3, 3, 56, 56):
            with T.block("conv"):
                vn, vf, vy, vx, vc, vky, vkx = T.axis.remap("SSSSRRR", [n, f, y, x, c, ky, kx])
                T.reads(padded[vn, vc, vy + vky, vx + vkx], weight[vf, vc, vky, vkx])
                T.writes(conv[vn, vf, vy, vx])
                with T.init():
                    conv[vn, vf, vy, vx] = T.float32(0)
                conv[vn, vf, vy, vx] = (
                    conv[vn, vf, vy, vx] + padded[vn, vc, vy + vky, vx + vkx] * weight[vf, vc, vky, vkx]
                )
        for n, f, y, x in T.grid(1, 32, 56, 56):
            with T.block("out"):
                vn, vf, vy, vx = T.axis.remap("SSSS", [n, f, y, x])
                T.reads(conv[vn, vf, vy, vx], bias[vf])
                T.writes(out[vn, vf, vy, vx])
                out[vn, vf, vy, vx] = T.max(conv[vn, vf, vy, vx] + bias[vf], T.float32(0))
