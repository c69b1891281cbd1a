"""Each pass leaves a well-formed module with the same meaning."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from compiler_service.pipeline import pipeline_for, run_pipeline
from crossfarm.frontends.tvmscript import parse
from crossfarm.ir.interpreter import run
from crossfarm.ir.module import IRModule
from crossfarm.ir.structural import explain_difference
from crossfarm.ir.verify import verify
from crossfarm.target import Target
from tests.compiler.test_corpus import BY_NAME, ON_CPU, arguments_of

#: Minutes for the interpreter, which runs vectors one by one: as written. What it computes when scheduled is tested
#: with the code that is built for it.
MANY_PRODUCTS = ("squeezenet64_fused_conv2d3_add2_relu2",)


@pytest.mark.parametrize("name", ON_CPU)
def test_after_each_pass_a_corpus_program_is_well_formed_and_gives_its_outputs(corpus: Path, name: str) -> None:
    case, data = BY_NAME[name], np.load(corpus / f"{name}.npz")
    module = parse((corpus / f"{name}.py").read_text(), name)
    target = Target("llvm")
    for step in pipeline_for(target, "none" if name in MANY_PRODUCTS else ""):
        before, module = module, step.apply(module, target)
        verify(module)
        if module is before:
            continue
        arguments, outputs = arguments_of(case, data)
        run(module, case["func"], arguments)
        for actual, expected in outputs:
            np.testing.assert_allclose(actual, expected, rtol=case["rtol"], atol=case["atol"], err_msg=step.name)


@pytest.mark.parametrize("name", ON_CPU)
def test_what_a_pass_prints_parses_back(corpus: Path, name: str) -> None:
    def check(step: str, module: IRModule) -> None:
        assert explain_difference(parse(module.script()), module) is None, step

    run_pipeline(parse((corpus / f"{name}.py").read_text(), name), Target("llvm"), on_pass=check)
