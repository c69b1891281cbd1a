"""No thread of a kernel relies on what another one does meanwhile: the rules' schedules, and what people write."""

from __future__ import annotations

import textwrap

import numpy as np
import pytest

from compiler_service.pipeline import run_pipeline
from crossfarm.frontends.tvmscript import parse
from crossfarm.ir import dtype as dt
from crossfarm.ir import interpreter
from crossfarm.ir.module import IRModule
from crossfarm.target import Target
from tests.compiler.gpu_schedules import GPUS, USUAL
from tests.compiler.native import Array
from tests.compiler.races import faults_of, races_of
from tests.compiler.tensor_programs import assert_within, expected
from tests.compiler.test_corpus import BY_NAME, ON_GPU, arguments_of
from tests.compiler.test_gpu_schedules import FITTING
from tests.compiler.thread_reductions import PROGRAMS, shapes_of
from tests.conftest import CORPUS


@pytest.mark.parametrize("target", GPUS.values(), ids=GPUS)
@pytest.mark.parametrize("rule", FITTING)
def test_threads_of_each_rules_kernels_wait_for_what_they_need(rule: str, target: str) -> None:
    program, sizes = FITTING[rule]
    inputs = program.arguments(**sizes)
    wanted = expected(program, inputs)
    found = [np.full(v.shape, 77, dt.to_numpy(t.dtype)) for (v, _), t in zip(wanted, program.outputs, strict=True)]
    assert faults_of(program.module, target, [*inputs, *found]) == []
    for got, (value, error), tensor in zip(found, wanted, program.outputs, strict=True):
        assert_within(got, value, error, tensor.name)


@pytest.mark.parametrize("name", PROGRAMS)
def test_threads_that_reduce_together_wait_for_one_another(name: str) -> None:
    module = PROGRAMS[name]
    arrays = [np.ones(shape, np.float32) for shape in shapes_of(module.prim_func("main"))]
    assert faults_of(module, USUAL, arrays) == []


@pytest.mark.usefixtures("corpus")
@pytest.mark.parametrize("name", ON_GPU)
def test_threads_of_programs_mapped_by_others_wait_for_what_they_need(name: str) -> None:
    case = BY_NAME[name]
    arguments, outputs = arguments_of(case, np.load(CORPUS / f"{name}.npz"))
    assert faults_of(parse((CORPUS / f"{name}.py").read_text(), name), USUAL, arguments, case["func"]) == []
    for found, wanted in outputs:
        np.testing.assert_allclose(found, wanted, rtol=case["rtol"], atol=case["atol"])


def written(body: str) -> IRModule:
    """A function of ``A`` and ``B``, 64 numbers each."""
    head = "@T.prim_func\ndef main(A: T.Buffer((64,), 'float32'), B: T.Buffer((64,), 'float32')):\n"
    return parse(head + textwrap.indent("T.func_attr({'tir.noalias': True})\n" + textwrap.dedent(body), "    "))


def results(module: IRModule) -> tuple[Array, list[str]]:
    """``B`` as block form means it, and where the kernels race; where they do not, they leave the same."""
    given = np.arange(64, dtype=np.float32) - 30
    meant, found = np.zeros(64, np.float32), np.zeros(64, np.float32)
    interpreter.run(module, "main", [given.copy(), meant])
    faults = faults_of(module, USUAL, [given.copy(), found])
    if not faults:
        np.testing.assert_array_equal(found, meant)
    return meant, faults


RACY = {
    "threads that share a sum": (
        "for t in T.thread_binding(64, thread='threadIdx.x'):\n    B[0] = B[0] + A[t]",
        "thread 0 of group 0 and thread 63 of group 0 meet at B[0], the first of 1 elements",
    ),
    "groups that share sums": (
        """
        for b in T.thread_binding(4, thread="blockIdx.x"):
            for t in T.thread_binding(16, thread="threadIdx.x"):
                B[t] = B[t] + A[b * 16 + t]
        """,
        "thread 0 of group 0 and thread 0 of group 3 meet at B[0], the first of 16 elements",
    ),
    "a neighbour's element": (
        """
        for t in T.thread_binding(63, thread="threadIdx.x"):
            A[t + 1] = T.float32(t)
            B[t] = A[t]
        """,
        "thread 0 of group 0 and thread 1 of group 0 meet at A[1], the first of 62 elements",
    ),
}


@pytest.mark.parametrize("name", RACY)
def test_a_race_is_found_that_threads_in_turn_do_not_show(name: str) -> None:
    text, said = RACY[name]
    _, faults = results(written(text))
    assert faults == [f"kernel 'main_kernel': {said}"]


def test_stores_of_the_same_value_are_told_apart() -> None:
    module = written("for t in T.thread_binding(64, thread='threadIdx.x'):\n    B[0] = A[5]")
    arrays = [np.ones(64, np.float32), np.zeros(64, np.float32)]
    (race,) = races_of(module, USUAL, arrays)
    assert race.agree
    assert "store the same value at B[0]" in str(race)
    assert faults_of(module, USUAL, arrays) == []


#: Each needs a barrier somewhere.
EXCHANGES = {
    "what one thread stored is loaded by all": """
        S = T.alloc_buffer((4,), "float32", scope="shared")
        L = T.alloc_buffer((4,), "float32", scope="local")
        for b in T.thread_binding(4, thread="blockIdx.x"):
            S[b] = A[b]
            L[b] = S[b] * T.float32(2)
            for t in T.thread_binding(16, thread="threadIdx.x"):
                B[b * 16 + t] = L[b]
    """,
    "what one of a row stored is loaded by the row": """
        S = T.alloc_buffer((4,), "float32", scope="shared")
        L = T.alloc_buffer((4,), "float32", scope="local")
        for b in T.thread_binding(1, thread="blockIdx.x"):
            for y in T.thread_binding(4, thread="threadIdx.y"):
                S[y] = A[y]
                L[y] = S[y]
                for x in T.thread_binding(16, thread="threadIdx.x"):
                    B[y * 16 + x] = L[y]
    """,
    "what a condition loads is overwritten": """
        S = T.alloc_buffer((16,), "float32", scope="shared")
        for b in T.thread_binding(4, thread="blockIdx.x"):
            for t in T.thread_binding(16, thread="threadIdx.x"):
                S[t] = A[b * 16 + t]
            for t in T.thread_binding(16, thread="threadIdx.x"):
                if S[15 - t] > T.float32(0):
                    B[b * 16 + t] = T.float32(1)
            for t in T.thread_binding(16, thread="threadIdx.x"):
                S[t] = -A[b * 16 + t]
    """,
    "what a loop's bound loads is overwritten": """
        S = T.alloc_buffer((16,), "int32", scope="shared")
        for b in T.thread_binding(4, thread="blockIdx.x"):
            for t in T.thread_binding(16, thread="threadIdx.x"):
                S[t] = t % 3
            for t in T.thread_binding(16, thread="threadIdx.x"):
                for k in range(S[15 - t]):
                    B[b * 16 + t] = B[b * 16 + t] + T.float32(1)
            for t in T.thread_binding(16, thread="threadIdx.x"):
                S[t] = t
    """,
    "what a neighbour left in the step before": """
        S = T.alloc_buffer((5, 16), "float32", scope="shared")
        for b in T.thread_binding(4, thread="blockIdx.x"):
            for t in T.thread_binding(16, thread="threadIdx.x"):
                S[0, t] = A[b * 16 + t]
            for k in range(4):
                for t in T.thread_binding(16, thread="threadIdx.x"):
                    S[k + 1, t] = S[k, (t + 1) % 16]
            for t in T.thread_binding(16, thread="threadIdx.x"):
                B[b * 16 + t] = S[4, t]
    """,
    "what a neighbour left in global memory": """
        C = T.alloc_buffer((5, 64), "float32")
        for b in T.thread_binding(4, thread="blockIdx.x"):
            for t in T.thread_binding(16, thread="threadIdx.x"):
                C[0, b * 16 + t] = A[b * 16 + t]
            for k in range(4):
                for t in T.thread_binding(16, thread="threadIdx.x"):
                    C[k + 1, b * 16 + t] = C[k, b * 16 + (t + 1) % 16]
            for t in T.thread_binding(16, thread="threadIdx.x"):
                B[b * 16 + t] = C[4, b * 16 + t]
    """,
    "elements that change threads from step to step": """
        S = T.alloc_buffer((16,), "float32", scope="shared")
        for b in T.thread_binding(4, thread="blockIdx.x"):
            for t in T.thread_binding(16, thread="threadIdx.x"):
                S[t] = A[b * 16 + t]
            for k in range(3):
                for t in T.thread_binding(16, thread="threadIdx.x"):
                    S[(t + k) % 16] = S[(t + k) % 16] + A[t]
            for t in T.thread_binding(16, thread="threadIdx.x"):
                B[b * 16 + t] = S[t]
    """,
}


@pytest.mark.parametrize("name", EXCHANGES)
def test_threads_wait_for(name: str) -> None:
    meant, faults = results(written(EXCHANGES[name]))
    assert faults == []
    assert np.unique(meant).size > 1


def test_threads_that_move_on_to_elements_of_their_own_wait_for_nobody() -> None:
    module = written("""
        for b in T.thread_binding(4, thread="blockIdx.x"):
            for k in range(4):
                for t in T.thread_binding(4, thread="threadIdx.x"):
                    B[b * 16 + k * 4 + t] = A[b * 16 + k * 4 + t]
                    B[b * 16 + k * 4 + t] = B[b * 16 + k * 4 + t] + T.float32(1)
    """)
    assert results(module)[1] == []
    assert "storage_sync" not in run_pipeline(module, Target(USUAL).resolved())[0].script()
