"""Functions that say what they are meant for: every spelling of it, and what is written back."""

from __future__ import annotations

import pytest

from crossfarm.errors import ScriptError
from crossfarm.frontends.tvmscript import parse
from crossfarm.ir.placement import placed, target_of
from crossfarm.ir.serialize import dumps, loads
from crossfarm.ir.verify import verify
from crossfarm.script import tir as T
from crossfarm.target import Target
from tests.frontends.helpers import round_trips, same

PROGRAM = """
@T.prim_func
def f(A: T.Buffer((4,), "float32")):
    T.func_attr({{"tir.noalias": True, "target": {target}}})
    for i in range(4):
        A[i] = A[i] + T.float32(1)
"""
GRAPH = """
@R.function
def f(x: R.Tensor((4,), "float32")) -> R.Tensor((4,), "float32"):
    R.func_attr({{"target": {target}}})
    with R.dataflow():
        y = R.add(x, x)
        R.output(y)
    return y
"""
#: Text → the same target in crossfarm's words. The longer ones are as TVM prints targets.
SPELLINGS = {
    '"opencl"': "opencl",
    'T.target("raspberry-pi/4b")': "raspberry-pi/4b",
    'T.target({"kind": "llvm", "features": ["+avx2"]})': "llvm features=+avx2",
    'T.target(["llvm", "vulkan"])': ["llvm", "vulkan"],
    'T.target("opencl", host="aarch64-linux-android")': {"kind": "opencl", "host": "aarch64-linux-android"},
    'T.target({"keys": ["cpu"], "kind": "llvm", "mattr": ["+neon"], "mcpu": "cortex-a72", "mtriple": '
    '"aarch64-linux-gnu", "tag": ""})': "llvm arch=aarch64 os=linux cpu=cortex-a72 features=+neon",
    'T.target({"arch": "sm_87", "host": {"keys": ["cpu"], "kind": "c", "tag": ""}, "keys": ["cuda", "gpu"], "kind": '
    '"cuda", "max_num_threads": 1024, "tag": "nvidia/some-gpu", "thread_warp_size": 32})': "cuda sm=87",
    'T.target({"host": {"keys": ["cpu"], "kind": "llvm", "mtriple": "x86_64-linux-gnu", "tag": ""}, "keys": ["gpu"], '
    '"kind": "vulkan", "max_threads_per_block": 256, "tag": ""})': {
        "kind": "vulkan", "max_threads_per_group": 256, "host": "x86_64-linux-gnu",
    },
    'T.target("llvm -mcpu=cortex-a72 -mattr=+neon,+aes -num-cores 4", host="llvm")':
        "llvm cpu=cortex-a72 features=+neon,+aes cores=4",
    'T.target("cuda -arch=sm_90a -keys=cuda,gpu")': "cuda sm=90",
}  # fmt: skip
WRONG = {
    'T.target("hexagon")': "unknown target 'hexagon'",
    'T.target({"kind": "open_cl"})': "unknown target kind 'open_cl'",
    'T.target("cuda -arch=compute_90")': "'sm' of target kind 'cuda' must be an integer",
    'T.target("llvm -mcpu")': "cannot read '-mcpu'",
    'T.target("native")': "a script cannot say 'native'",
    'T.target({"tag": "native"})': "a script cannot say 'native'",
    'T.target(\'{"tag": "native"}\')': "holds no JSON text",
    'T.target("opencl", host="vulkan")': "a host must be a CPU target",
    "T.target()": "T.target needs 'target_config'",
    "3": "cannot make a target of 3",
}


@pytest.mark.parametrize("text", SPELLINGS)
@pytest.mark.parametrize("form", [PROGRAM, GRAPH], ids=["prim_func", "graph"])
def test_every_spelling_of_a_target_reads_as_one_that_round_trips(form: str, text: str) -> None:
    module = parse(form.format(target=text))
    verify(module)
    assert target_of(module["f"]) == Target(SPELLINGS[text])
    assert "T.target({" in round_trips(module)
    same(module, loads(dumps(module), check=True))


@pytest.mark.parametrize("text", WRONG)
def test_what_is_no_target_is_refused_where_it_stands(text: str) -> None:
    with pytest.raises(ScriptError) as caught:
        parse(PROGRAM.format(target=text))
    assert WRONG[text] in str(caught.value)
    assert caught.value.line == 4


LAB_PHONE = Target("opencl", host="aarch64-linux-android")


def test_a_target_from_around_the_function_is_taken_as_it_is() -> None:
    @T.prim_func
    def scale(A: T.Buffer((4,), "float32")):
        T.func_attr({"target": LAB_PHONE})
        for i in range(4):
            A[i] = A[i] * 2.0

    assert target_of(scale) == LAB_PHONE
    assert target_of(placed(scale, Target("llvm"))) == Target("llvm")
    assert target_of(placed(scale, None)) is None
