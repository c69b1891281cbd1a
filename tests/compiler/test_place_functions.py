"""Functions with targets of their own: which a build has, and what it refuses."""

from __future__ import annotations

import pytest

from compiler_service.passes.place_functions import PlaceFunctions
from compiler_service.pipeline import run_pipeline, steps_for
from crossfarm.errors import BuildFailed
from crossfarm.frontends.tvmscript import parse
from crossfarm.ir.module import IRModule
from crossfarm.ir.structural import explain_difference
from crossfarm.ir.verify import verify
from crossfarm.target import Target

PROGRAM = """
    @T.prim_func{private}
    def {name}(A: T.Buffer((4,), "float32"), B: T.Buffer((4,), "float32")):
        {attributes}
        for i in range(4):
            B[i] = A[i] + T.float32(1)
"""
GRAPH = """
    @R.function
    def {name}(x: R.Tensor((4,), "float32")) -> R.Tensor((4,), "float32"):
        {attributes}
        cls = M
        with R.dataflow():
            y = R.call_tir(cls.{callee}, (x,), out_sinfo=R.Tensor((4,), "float32"))
            R.output(y)
        return y
"""


def program(name: str, target: str = "", *, private: bool = False) -> str:
    attributes = f'T.func_attr({{"target": T.target("{target}")}})' if target else "pass"
    return PROGRAM.format(name=name, attributes=attributes, private="(private=True)" if private else "")


def caller(name: str, callee: str, target: str = "") -> str:
    attributes = f'R.func_attr({{"target": T.target("{target}")}})' if target else '"""Calls."""'
    return GRAPH.format(name=name, callee=callee, attributes=attributes)


def module(*functions: str) -> IRModule:
    found = parse("@I.ir_module\nclass M:" + "".join(functions))
    verify(found)
    return found


MIXED = (
    program("anywhere"),
    program("here", "llvm"),
    program("there", "opencl"),
    program("both", "any-cpu"),
    caller("on_gpu", "helper", "opencl"),
    program("helper", private=True),
    program("uncalled", private=True),
)


@pytest.mark.parametrize(
    ("target", "kept"),
    [
        ("llvm", (program("anywhere"), program("here"), program("both"), program("uncalled", private=True))),
        (
            "opencl",
            (
                program("anywhere"),
                program("there"),
                caller("on_gpu", "helper"),
                program("helper", private=True),
                program("uncalled", private=True),
            ),
        ),
        ("vulkan", (program("anywhere"), program("uncalled", private=True))),
    ],
)
def test_a_build_has_the_functions_that_are_meant_for_its_target(target: str, kept: tuple[str, ...]) -> None:
    built = PlaceFunctions().apply(module(*MIXED), Target(target))
    verify(built)
    assert explain_difference(built, module(*kept)) is None
    run_pipeline(module(*MIXED), Target(target).resolved(), lambda _, after: verify(after))


def test_functions_without_targets_are_not_looked_at() -> None:
    plain = module(program("f"), caller("g", "f"))
    assert PlaceFunctions().apply(plain, Target("cuda")) is plain
    assert "place_functions" not in [step.name for step in steps_for(plain, Target("llvm"))]
    assert steps_for(module(*MIXED), Target("llvm"))[0].name == "place_functions"


@pytest.mark.parametrize(
    ("meant", "said"),
    [("llvm", "'main', which is meant for target llvm, calls"), ("", "'main', which is in every build, calls")],
)
def test_a_call_of_a_function_on_another_target_names_both(meant: str, said: str) -> None:
    program_and_caller = module(program("kernel", "cuda sm=87"), caller("main", "kernel", meant))
    with pytest.raises(BuildFailed) as caught:
        run_pipeline(program_and_caller, Target("x86-64-v3"))
    text = str(caught.value)
    assert said in text
    assert "calls function 'kernel', which is meant for target cuda sm=87: that does not fit target x86-64-v3" in text
    assert "call one after the other from the client" in text


def test_a_build_without_any_function_left_says_what_they_are_meant_for() -> None:
    with pytest.raises(BuildFailed) as caught:
        run_pipeline(module(program("f", "cuda sm=53"), program("g", "llvm")), Target("cuda sm=87"))
    text = str(caught.value)
    assert "no function of module 'M' is meant for target cuda" in text
    assert "'f' is meant for cuda sm=53 (sm is 53 in one and 87 in the other)" in text
    assert "'g' is meant for llvm" in text
