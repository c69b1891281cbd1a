"""Graph functions as releases of TVM print them: the newest one's text and the older one's are the same module."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from crossfarm.errors import ScriptError
from crossfarm.frontends.tvmscript import parse
from crossfarm.ir.graph.expr import CallPacked, CallTIR, Conditional, Constant, FunctionCall, OperatorCall, PrimValue
from crossfarm.ir.graph.types import PrimType, TensorType
from crossfarm.ir.graph.visit import bindings, expressions
from crossfarm.ir.module import IRModule
from crossfarm.ir.printer import print_node
from crossfarm.ir.verify import verify
from tests.frontends.helpers import round_trips, same

#: An exported network: weights are parameters, attributes are written out, types stand at every binding.
NETWORK = """\
# from typing import TypeVar
# from tvm.script import ir as I
# from tvm.script import relax as R

batch = TypeVar("batch")
@I.ir_module
class Module:
    @R.function
    def forward(x: R.Tensor((batch, 32), dtype="float32"), fc1: R.Tensor((32, 16), dtype="float32"), fc1_bias: R.Tensor((16,), dtype="float32"), fc2: R.Tensor((16, 10), dtype="float32")) -> R.Tuple(R.Tensor((batch, 10), dtype="float16"), R.Tensor((batch,), dtype="int64")):
        R.func_attr({"num_input": 1})
        with R.dataflow():
            matmul: R.Tensor((batch, 16), dtype="float32") = R.matmul(x, fc1, out_dtype=None)
            add: R.Tensor((batch, 16), dtype="float32") = R.add(matmul, fc1_bias)
            relu: R.Tensor((batch, 16), dtype="float32") = R.nn.leakyrelu(add, alpha=0.10000000000000001)
            scaled: R.Tensor((batch, 16), dtype="float32") = R.multiply(relu, R.const(0.5, "float32"))
            matmul1: R.Tensor((batch, 10), dtype="float32") = R.matmul(scaled, fc2, out_dtype="float32")
            clip: R.Tensor((batch, 10), dtype="float32") = R.clip(matmul1, 0, 6)
            half: R.Tensor((batch, 10), dtype="float16") = R.astype(clip, dtype="float16")
            best: R.Tensor((batch,), dtype="int64") = R.argmax(half, axis=1, keepdims=False)
            gv: R.Tuple(R.Tensor((batch, 10), dtype="float16"), R.Tensor((batch,), dtype="int64")) = half, best
            R.output(gv)
        return gv
"""  # noqa: E501
OLDER_NETWORK = """\
# from tvm.script import ir as I
# from tvm.script import tir as T
# from tvm.script import relax as R

@I.ir_module
class Module:
    @R.function
    def forward(x: R.Tensor(("batch", 32), dtype="float32"), fc1: R.Tensor((32, 16), dtype="float32"), fc1_bias: R.Tensor((16,), dtype="float32"), fc2: R.Tensor((16, 10), dtype="float32")) -> R.Tuple(R.Tensor(("batch", 10), dtype="float16"), R.Tensor(("batch",), dtype="int64")):
        batch = T.int64()
        R.func_attr({"num_input": 1})
        with R.dataflow():
            matmul: R.Tensor((batch, 16), dtype="float32") = R.matmul(x, fc1, out_dtype="void")
            add: R.Tensor((batch, 16), dtype="float32") = R.add(matmul, fc1_bias)
            relu: R.Tensor((batch, 16), dtype="float32") = R.nn.leakyrelu(add, alpha=0.10000000000000001)
            scaled: R.Tensor((batch, 16), dtype="float32") = R.multiply(relu, R.const(0.5, "float32"))
            matmul1: R.Tensor((batch, 10), dtype="float32") = R.matmul(scaled, fc2, out_dtype="float32")
            clip: R.Tensor((batch, 10), dtype="float32") = R.clip(matmul1, R.prim_value(0), R.prim_value(6))
            half: R.Tensor((batch, 10), dtype="float16") = R.astype(clip, dtype="float16")
            best: R.Tensor((batch,), dtype="int64") = R.argmax(half, axis=1, keepdims=False)
            gv: R.Tuple(R.Tensor((batch, 10), dtype="float16"), R.Tensor((batch,), dtype="int64")) = (half, best)
            R.output(gv)
        return gv
"""  # noqa: E501

#: A legalized module: operators have become tensor programs.
LOWERED = """\
# from typing import TypeVar
# from tvm.script import ir as I
# from tvm.script import tirx as T
# from tvm.tirx.layout import Axis
# from tvm.script import relax as R

n = TypeVar("n")
m = TypeVar("m")
@I.ir_module
class Lowered:
    @T.prim_func(private=True, s_tir=True)
    def exp(x: T.Buffer((n, T.int64(4)), "float32"), compute: T.Buffer((n, T.int64(4)), "float32")):
        T.func_attr({"tirx.noalias": True})
        # with T.sblock("root"):
        for i0, i1 in T.grid(n, T.int64(4)):
            with T.sblock("compute"):
                v_i0, v_i1 = T.axis.remap("SS", [i0, i1])
                T.reads(x[v_i0, v_i1])
                T.writes(compute[v_i0, v_i1])
                compute[v_i0, v_i1] = T.exp(x[v_i0, v_i1])

    @R.function
    def main(x: R.Tensor((n, 4), dtype="float32"), y: R.Tensor((n * 2, m), dtype="float32")) -> R.Tuple(R.Tensor((n, 4), dtype="float32"), R.Tensor((n * 2,), dtype="int8")):
        cls = Lowered
        with R.dataflow():
            lv = R.call_tir(cls.exp, (x,), out_ty=R.Tensor((n, 4), dtype="float32"))
            lv1 = R.call_dps_packed("library.sort", (y, lv, 3, R.shape([n, m + 1])), out_ty=[R.Tensor((n * 2, m), dtype="float32"), R.Tensor((n * 2,), dtype="int8")])
            lv2: R.Tensor((n * 2,), dtype="int8") = lv1[1]
            gv: R.Tuple(R.Tensor((n, 4), dtype="float32"), R.Tensor((n * 2,), dtype="int8")) = lv, lv2
            R.output(gv)
        return gv
"""  # noqa: E501
OLDER_LOWERED = """\
from tvm.script import ir as I
from tvm.script import tir as T
from tvm.script import relax as R

@I.ir_module
class Lowered:
    @T.prim_func(private=True)
    def exp(var_x: T.handle, var_compute: T.handle):
        T.func_attr({"tir.noalias": T.bool(True)})
        n = T.int64()
        x = T.match_buffer(var_x, (n, T.int64(4)))
        compute = T.match_buffer(var_compute, (n, T.int64(4)))
        # with T.block("root"):
        for i0, i1 in T.grid(n, T.int64(4)):
            with T.block("compute"):
                v_i0, v_i1 = T.axis.remap("SS", [i0, i1])
                T.reads(x[v_i0, v_i1])
                T.writes(compute[v_i0, v_i1])
                compute[v_i0, v_i1] = T.exp(x[v_i0, v_i1])

    @R.function
    def main(x: R.Tensor(("n", 4), dtype="float32"), y: R.Tensor(("n * 2", "m"), dtype="float32")) -> R.Tuple(R.Tensor(("n", 4), dtype="float32"), R.Tensor(("n * 2",), dtype="int8")):
        n = T.int64()
        m = T.int64()
        cls = Lowered
        with R.dataflow():
            lv = R.call_tir(cls.exp, (x,), out_sinfo=R.Tensor((n, 4), dtype="float32"))
            lv1 = R.call_dps_packed("library.sort", (y, lv, R.prim_value(3), R.shape([n, m + 1])), out_sinfo=[R.Tensor((n * 2, m), dtype="float32"), R.Tensor((n * 2,), dtype="int8")])
            lv2: R.Tensor((n * 2,), dtype="int8") = lv1[1]
            gv: R.Tuple(R.Tensor((n, 4), dtype="float32"), R.Tensor((n * 2,), dtype="int8")) = (lv, lv2)
            R.output(gv)
        return gv
"""  # noqa: E501

#: Control flow, functions that call each other, shapes that are looked up.
CONTROL = """\
# from typing import TypeVar
# from tvm.script import ir as I
# from tvm.script import tirx as T
# from tvm.script import relax as R

n = TypeVar("n")
m = TypeVar("m")
@I.ir_module
class Module:
    @R.function(pure=False)
    def main(x: R.Tensor((n, 64), dtype="float32"), c: R.Tensor((), dtype="bool"), s: R.Shape([n, 3]), p: T.int64) -> R.Tuple(R.Tensor((m, 64), dtype="float32"), T.int64, R.Shape([n, m])):
        cls = Module
        if c:
            a: R.Tensor((n, 64), dtype="float32") = cls.scale(x)
            r_then: R.Tensor((n, 64), dtype="float32") = R.add(a, a)
            r: R.Tensor((n, 64), dtype="float32") = r_then
        else:
            r_else: R.Tensor((n, 64), dtype="float32") = R.nn.relu(x)
            r: R.Tensor((n, 64), dtype="float32") = r_else
        q: R.Tensor((m, 64), dtype="float32") = R.match_cast(r, R.Tensor((m, 64), dtype="float32"))
        t: R.Tuple(R.Tensor((m, 64), dtype="float32"), T.int64, R.Shape([n, m])) = q, p, R.shape([n, m])
        return t

    @R.function(private=True)
    def scale(x: R.Tensor((n, 64), dtype="float32")) -> R.Tensor((n, 64), dtype="float32"):
        with R.dataflow():
            gv: R.Tensor((n, 64), dtype="float32") = R.multiply(x, R.const(2, "float32"))
            R.output(gv)
        return gv
"""  # noqa: E501
OLDER_CONTROL = """\
# from tvm.script import ir as I
# from tvm.script import tir as T
# from tvm.script import relax as R

@I.ir_module
class Module:
    @R.function(private=True)
    def scale(x: R.Tensor(("n", 64), dtype="float32")) -> R.Tensor(("n", 64), dtype="float32"):
        n = T.int64()
        with R.dataflow():
            gv: R.Tensor((n, 64), dtype="float32") = R.multiply(x, R.const(2, "float32"))
            R.output(gv)
        return gv

    @R.function(pure=False)
    def main(x: R.Tensor(("n", 64), dtype="float32"), c: R.Tensor((), dtype="bool"), s: R.Shape(["n", 3]), p: R.Prim("int64")) -> R.Tuple(R.Tensor(dtype="float32", ndim=2), R.Prim("int64"), R.Shape(ndim=2)):
        n = T.int64()
        cls = Module
        if c:
            a: R.Tensor((n, 64), dtype="float32") = cls.scale(x)
            r_then: R.Tensor((n, 64), dtype="float32") = R.add(a, a)
            r: R.Tensor((n, 64), dtype="float32") = r_then
        else:
            r_else: R.Tensor((n, 64), dtype="float32") = R.nn.relu(x)
            r: R.Tensor((n, 64), dtype="float32") = r_else
        m = T.int64()
        q = R.match_cast(r, R.Tensor((m, 64), dtype="float32"))
        t: R.Object = (q, p, R.shape([n, m]))
        return t
"""  # noqa: E501

#: A network of convolutions: TVM writes every attribute, and its batch norm gives running statistics too.
CONVOLUTIONS = """\
# from typing import TypeVar
# from tvm.script import ir as I
# from tvm.script import relax as R

n = TypeVar("n")
@I.ir_module
class Module:
    @R.function
    def main(x: R.Tensor((n, 3, 8, 8), dtype="float32"), w: R.Tensor((4, 3, 3, 3), dtype="float32"), gamma: R.Tensor((4,), dtype="float32"), beta: R.Tensor((4,), dtype="float32"), mean: R.Tensor((4,), dtype="float32"), var: R.Tensor((4,), dtype="float32")) -> R.Tuple(R.Tensor((n, 1), dtype="float32"), R.Tensor((n, 4), dtype="float32"), R.Tuple(R.Tensor((n, 2), dtype="float32"), R.Tensor((n, 2), dtype="int32")), R.Tensor((5,), dtype="int64"), R.Tensor(("n * 4",), dtype="float32")):
        with R.dataflow():
            lv: R.Tensor((n, 4, 4, 4), dtype="float32") = R.nn.conv2d(x, w, strides=[2, 2], padding=[1, 1, 1, 1], dilation=[1, 1], groups=1, data_layout="NCHW", kernel_layout="OIHW", out_layout="NCHW", out_dtype=None)
            lv1: R.Tuple(R.Tensor((n, 4, 4, 4), dtype="float32"), R.Tensor((4,), dtype="float32"), R.Tensor((4,), dtype="float32")) = R.nn.batch_norm(lv, gamma, beta, mean, var, axis=1, epsilon=1.0000000000000001e-05, center=True, scale=True, momentum=0.10000000000000001, training=False)
            lv2: R.Tensor((n, 4, 4, 4), dtype="float32") = lv1[0]
            slope: R.Tensor((n, 4, 4, 4), dtype="float32") = R.nn.prelu(lv2, gamma, axis=1)
            lv3: R.Tensor((n, 4, 2, 2), dtype="float32") = R.nn.max_pool2d(slope, pool_size=[2, 2], strides=[2, 2], dilation=[1, 1], padding=[0, 0, 0, 0], ceil_mode=False, count_include_pad=False, layout="NCHW", out_layout="NCHW")
            lv4: R.Tensor((n, 4, 1, 1), dtype="float32") = R.nn.adaptive_avg_pool2d(lv3, output_size=[1, 1], layout="NCHW", out_layout="NCHW")
            lv5: R.Tensor((n, 4), dtype="float32") = R.squeeze(lv4, axis=[2, 3])
            lv6: R.Tensor((n, 4), dtype="float32") = R.nn.layer_norm(lv5, gamma, beta, axes=[-1], epsilon=1.0000000000000001e-05, center=True, scale=True)
            lv7: R.Tensor((1, n, 4), dtype="float32") = R.expand_dims(lv6, axis=[0])
            lv8: R.Tensor((n, 4), dtype="bool") = R.greater(lv6, R.const(0.0, "float32"))
            lv9: R.Tensor((n, 4), dtype="float32") = R.where(lv8, lv6, lv6)
            lv10: R.Tensor((n, 1), dtype="float32") = R.mean(lv9, axis=[1], keepdims=True)
            lv12: R.Tensor((n, 4), dtype="float32") = R.cumsum(lv9, axis=1, dtype=None, exclusive=False)
            lv14: R.Tuple(R.Tensor((n, 2), dtype="float32"), R.Tensor((n, 2), dtype="int32")) = R.topk(lv12, k=2, axis=1, ret_type="both", largest=True, dtype="int32")
            lv15: R.Tensor((5,), dtype="int64") = R.arange(0, 10, 2, dtype="int64")
            lv17: R.Tuple(R.Tensor((n, 2), dtype="float32"), R.Tensor((n, 2), dtype="float32")) = R.split(lv9, indices_or_sections=2, axis=1)
            lv18: R.Tensor((n, 2), dtype="float32") = lv17[1]
            lv19: R.Tensor((n, 4), dtype="float32") = R.concat((lv18, lv18), axis=-1)
            lv20: R.Tensor((4, n), dtype="float32") = R.permute_dims(lv19, axes=[1, 0])
            lv21: R.Tensor((n, 4), dtype="float32") = R.permute_dims(lv20, axes=None)
            lv22: R.Tensor((n, 4), dtype="float32") = R.full(R.shape([n, 4]), R.const(0.5, "float32"), dtype="float32")
            lv23: R.Tensor((n, 4), dtype="float32") = R.zeros(R.shape([n, 4]), dtype="float32")
            lv24: R.Tensor((n, 4), dtype="float32") = R.add(R.add(lv21, lv22), lv23)
            lv25: R.Tensor((n, 2), dtype="float32") = R.strided_slice(lv24, (1,), (0,), (4,), (2,), assume_inbound=False)
            lv26: R.Tensor((n, 4), dtype="float32") = R.nn.pad(lv25, pad_width=[0, 0, 1, 1], pad_value=0.0, pad_mode="constant")
            lv27: R.Tensor((n, 4), dtype="float32") = R.nn.softmax(lv26, axis=-1)
            lv28: R.Tensor((2, 4), dtype="float32") = R.take(lv27, R.const([1, 2], "int64"), axis=0, mode="fast")
            lv16: R.Tensor((n * 4,), dtype="float32") = R.reshape(lv27, R.shape([n * 4]))
            gv: R.Tuple(R.Tensor((n, 1), dtype="float32"), R.Tensor((n, 4), dtype="float32"), R.Tuple(R.Tensor((n, 2), dtype="float32"), R.Tensor((n, 2), dtype="int32")), R.Tensor((5,), dtype="int64"), R.Tensor((n * 4,), dtype="float32")) = lv10, lv12, lv14, lv15, lv16
            R.output(gv)
        return gv
"""  # noqa: E501
#: The same attributes as TVM 0.18 and before printed them.
OLDER_CONVOLUTIONS = CONVOLUTIONS
for _newer, _older in {
    'n = TypeVar("n")\n': "",
    "((n, 3, 8, 8)": '(("n", 3, 8, 8)',
    '-> R.Tuple(R.Tensor((n, 1), dtype="float32"), R.Tensor((n, 4), dtype="float32"), R.Tuple(R.Tensor((n, 2), '
    'dtype="float32"), R.Tensor((n, 2), dtype="int32"))': '-> R.Tuple(R.Tensor(("n", 1), dtype="float32"), '
    'R.Tensor(("n", 4), dtype="float32"), R.Tuple(R.Tensor(("n", 2), dtype="float32"), R.Tensor(("n", 2), '
    'dtype="int32"))',
    "        with R.dataflow():": "        n = T.int64()\n        with R.dataflow():",
    "out_dtype=None": 'out_dtype="void"',
    "dtype=None, exclusive=False": 'dtype="void", exclusive=0',
    "R.arange(0, 10, 2": "R.arange(R.prim_value(0), R.prim_value(10), R.prim_value(2)",
    "(1,), (0,), (4,), (2,)": "(R.prim_value(1),), (R.prim_value(0),), (R.prim_value(4),), (R.prim_value(2),)",
    ", training=False": "",
    'R.take(lv27, R.const([1, 2], "int64"), axis=0, mode="fast")': 'R.take(lv27, R.const([1, 2], "int64"), axis=0)',
}.items():
    assert _newer in OLDER_CONVOLUTIONS
    OLDER_CONVOLUTIONS = OLDER_CONVOLUTIONS.replace(_newer, _older)

PAIRS = {
    "convolutions": (CONVOLUTIONS, OLDER_CONVOLUTIONS),
    "network": (NETWORK, OLDER_NETWORK),
    "lowered": (LOWERED, OLDER_LOWERED),
    "control": (CONTROL, OLDER_CONTROL),
}


@pytest.mark.parametrize("name", PAIRS)
def test_the_newest_text_and_the_older_one_are_one_module(name: str) -> None:
    newest, older = map(parse, PAIRS[name])
    same(newest, older)
    verify(newest)
    round_trips(newest)
    round_trips(older)


def test_a_printed_network_has_its_operators_attributes_and_types() -> None:
    module = parse(NETWORK)
    forward = module.graph_functions["forward"]
    calls = [e for e in expressions(forward) if isinstance(e, OperatorCall)]
    assert [c.op for c in calls] == [
        "matmul", "add", "nn.leakyrelu", "multiply", "matmul", "clip", "astype", "argmax",
    ]  # fmt: skip
    assert [dict(c.attrs) for c in calls if c.attrs] == [
        {"alpha": 0.1}, {"out_dtype": "float32"}, {"min": 0, "max": 6}, {"dtype": "float16"}, {"axis": 1},
    ]  # fmt: skip
    assert forward.attrs == {"num_input": 1}
    assert print_node(forward.result).count("batch") == 2


def test_a_legalized_module_calls_its_tensor_programs() -> None:
    main = parse(LOWERED).graph_functions["main"]
    values = [b.value for b in bindings(main.body)]
    tir, packed = values[:2]
    assert isinstance(tir, CallTIR)
    assert isinstance(packed, CallPacked)
    assert (tir.function, len(tir.out), packed.function, len(packed.out)) == ("exp", 1, "library.sort", 2)
    assert isinstance(packed.args[2], PrimValue)


def test_branches_and_calls_of_graph_functions() -> None:
    main = parse(CONTROL).graph_functions["main"]
    choice = next(e for e in expressions(main) if isinstance(e, Conditional))
    assert [len(list(bindings(branch))) for branch in (choice.then, choice.other)] == [
        2,
        1,
    ]  # and each branch's r is its result
    assert any(isinstance(e, FunctionCall) for e in expressions(choice.then))
    assert isinstance(main.params[3].type, PrimType)
    assert not main.pure


def test_sizes_of_call_tir_are_arguments_behind_the_tensors() -> None:
    text = OLDER_LOWERED.replace('out_sinfo=R.Tensor((n, 4), dtype="float32"))', 'out_sinfo=R.Tensor((n, 4), dtype='
                                 '"float32"), tir_vars=R.shape([n, 7]))')  # fmt: skip
    call = next(e for e in expressions(parse(text).graph_functions["main"]) if isinstance(e, CallTIR))
    assert [print_node(s) for s in call.sizes] == ["n", "T.int64(7)"]
    assert "tir_vars=R.shape([n, 7])" in round_trips(parse(text))


def function(body: str, signature: str = 'x: R.Tensor((4, 8), "float32")') -> IRModule:
    lines = "\n".join(f"    {line}" for line in body.splitlines())
    return parse(f"@R.function\ndef main({signature}):\n{lines}")


def test_calls_in_calls_are_bound_one_by_one() -> None:
    nested = function("return R.add(R.nn.relu(R.add(x, x)), R.const(1.0))")
    flat = function("a = R.add(x, x)\nb = R.nn.relu(a)\nc = R.add(b, R.const(1.0))\nreturn c")
    same(nested, flat)


@pytest.mark.parametrize(
    "text",
    [
        "R.sum(x, axis=[1], keepdims=True)",
        "R.sum(x, 1, True)",
        "R.sum(x, R.prim_value(1), keepdims=T.bool(True))",
        "R.sum(x, (1,), keepdims=1)",
        "R.sum(data=x, axis=(T.int64(1),), keepdims=True)",
    ],
)
def test_arguments_stand_by_position_or_by_name(text: str) -> None:
    same(function(f"return {text}"), function("return R.sum(x, axis=1, keepdims=True)"))


@pytest.mark.parametrize(
    ("text", "dtype", "expected"),
    [
        ("R.const(1)", "int32", 1),
        ("R.const(1.5)", "float32", 1.5),
        ("R.const(True)", "bool", True),
        ("R.const(-3, 'int8')", "int8", -3),
        ("R.const([[1, 2], [3, 4.5]])", "float32", [[1, 2], [3, 4.5]]),
        ("R.const((1, 2), dtype='float64')", "float64", [1, 2]),
        ("R.const(T.float32('-inf'), 'float16')", "float16", -np.inf),
        ("R.const([T.float64('nan'), -0.0], 'float32')", "float32", [np.nan, -0.0]),
    ],
)
def test_constants_are_what_the_text_says(text: str, dtype: str, expected: Any) -> None:
    result = function(f"return {text}").graph_functions["main"].body.result
    assert isinstance(result, Constant)
    assert result.data.dtype == dtype
    np.testing.assert_array_equal(result.data.array, np.array(expected, dtype))


def test_a_constant_may_be_named_by_the_digest_of_its_content() -> None:
    text = f'return R.constant("sha256:{"0f" * 32}", R.Tensor((1000, 3), dtype="float16"))'
    module = function(text)
    constant = module.graph_functions["main"].body.result
    assert isinstance(constant, Constant)
    assert (constant.data.known, constant.data.shape, constant.data.digest) == (False, (1000, 3), "0f" * 32)
    assert text in round_trips(module)


def test_annotations_in_another_form_of_the_same_sizes_are_right() -> None:
    module = function(
        "n = T.int64()\ny: R.Tensor((T.min(n * 2 + 2, n + n + 2), 4)) = R.add(x, x)\nreturn y",
        'x: R.Tensor(("2 * (n + 1)", 4), "float32")',
    )
    assert isinstance(kind := module.graph_functions["main"].result, TensorType)
    assert len(kind.shape) == 2


def test_functions_may_call_each_other_where_they_say_what_they_return() -> None:
    text = """\
@I.ir_module
class M:
    @R.function
    def even(x: R.Tensor((4,), "float32"), c: R.Tensor((), "bool")) -> R.Tensor((4,), "float32"):
        if c:
            y = M.odd(x, c)
        else:
            y = x
        return y
    @R.function
    def odd(x: R.Tensor((4,), "float32"), c: R.Tensor((), "bool"))RESULT:
        return M.even(x, c)
"""
    round_trips(parse(text.replace("RESULT", "")))
    with pytest.raises(ScriptError, match="does not say what it returns") as caught:
        parse(text.replace("RESULT", "").replace(' -> R.Tensor((4,), "float32")', ""))
    assert caught.value.construct == "def even"


def test_a_value_of_a_dataflow_block_ends_with_it_unless_it_is_its_output() -> None:
    body = "with R.dataflow():\n    a = R.add(x, x)\n    b = R.add(a, x)\n    R.output({})\nreturn b"
    round_trips(function(body.format("b")))
    with pytest.raises(ScriptError, match="undefined name 'b'") as caught:
        function(body.format("a"))
    assert "R.output names it" in caught.value.hint


@pytest.mark.parametrize(
    ("theirs", "ours"),
    [
        ("R.split(x, 2, axis=1)", "R.split(x, sizes=(4, 4), axis=1)"),
        ("R.split(x, 3, 1)", "R.split(x, sizes=(3, 3, 2), axis=1)"),
        ("R.split(x, [2, 6], axis=-1)", "R.split(x, sizes=(2, 4, 2), axis=-1)"),
        ("R.split(x, indices_or_sections=[1])", "R.split(x, sizes=(1, 3))"),
        ("R.nn.relu6(x)", "R.clip(x, min=0, max=6)"),
        ("R.zeros(R.shape([2]), 'int8')", "R.full(shape=(2,), value=0, dtype='int8')"),
        ("R.ones((2, 3), dtype='bool')", "R.full(shape=(2, 3), value=1, dtype='bool')"),
        ("R.zeros_like(x)", "R.full_like(x, value=0)"),
        ("R.full((2,), R.const(3, 'int64'))", "R.full(shape=(2,), value=3, dtype='int64')"),
        ("R.full((2,), fill_value=R.const(3, 'int64'), dtype=None)", "R.full(shape=(2,), value=3, dtype='int64')"),
        ("R.arange(start=0, end=4, dtype='int64')", "R.arange(0, 4, 1, dtype='int64')"),
        ("R.one_hot(R.const([1]), R.prim_value(2), R.prim_value(1), 5)",
         "R.one_hot(R.const([1]), depth=5, on_value=2, off_value=1)"),
        ("R.reshape(x, R.shape([32]))", "R.reshape(x, shape=32)"),
        ("R.nn.prelu(x, R.const([1.0, 2.0, 3.0, 4.0]), axis=0)",
         "R.nn.prelu(x, R.reshape(R.const([1.0, 2.0, 3.0, 4.0]), shape=(4, 1)))"),
    ],
)  # fmt: skip
def test_what_tvm_spells_differently_means_the_same(theirs: str, ours: str) -> None:
    same(function(f"return {theirs}"), function(f"return {ours}"))
    round_trips(function(f"return {theirs}"))


@pytest.mark.parametrize(
    ("text", "construct"),
    [
        ("R.nn.conv2d(y, y, data_layout='NHWC')", "R.nn.conv2d data_layout"),
        ("R.nn.conv2d(y, y, kernel_layout='IOHW')", "R.nn.conv2d kernel_layout"),
        ("R.nn.max_pool2d(y, [2, 2], count_include_pad=True)", "R.nn.max_pool2d count_include_pad"),
        ("R.nn.batch_norm(y, x, x, x, x, axis=1, training=True)", "R.nn.batch_norm training"),
        ("R.nn.layer_norm(y, x, x, axes=[-1], center=False)", "R.nn.layer_norm center"),
        ("R.nn.adaptive_avg_pool2d(y, output_size=[2, 2])", "R.nn.adaptive_avg_pool2d"),
        ("R.take(x, R.const([1]), axis=0, mode='wrap')", "R.take mode"),
        ("R.topk(x, k=1, ret_type='values')", "R.topk ret_type"),
    ],
)
def test_what_would_mean_another_thing_is_refused(text: str, construct: str) -> None:
    with pytest.raises(ScriptError) as caught:
        function(f"return {text}", 'x: R.Tensor((4,), "float32"), y: R.Tensor((1, 4, 8, 8), "float32")')
    assert caught.value.construct == construct


def test_a_shape_that_is_a_value_is_a_shape_for_operators() -> None:
    module = function(
        "n = T.int64()\ns = R.shape([n, 2, 4])\nreturn R.reshape(x, s)", 'x: R.Tensor(("n", 8), dtype="float32")'
    )
    assert print_node(module.graph_functions["main"].result) == 'R.Tensor((n, 2, 4), dtype="float32")'
    round_trips(module)
