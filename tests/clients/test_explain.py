"""``crossfarm explain`` and ``Explanation``: what the compiler made of a program, for people and as JSON."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

import crossfarm as cf
from clients.sdk import Explanation, Farm
from crossfarm.artifact import Artifact, write_artifact
from crossfarm.errors import ArgumentError, InvalidArtifact, NotFound
from crossfarm.ir.graph import dims
from crossfarm.ir.graph.builder import Builder
from crossfarm.ir.graph.types import TensorType
from crossfarm.ir.module import IRModule
from crossfarm.target import Target
from crossfarm.wire.v1.artifact_pb2 import EntryPoint, Variant
from tests.clients import programs
from tests.clients.conftest import Crossfarm

EXAMPLES = Path(__file__).resolve().parent.parent.parent / "examples"
SYMBOLIC = (EXAMPLES / "softmax.py").read_text()
TARGET = "x86-64-v3"


@pytest.fixture(scope="module")
def artifact(farm: Farm) -> Artifact:
    return farm.build(cf.parse(programs.TWO), target=TARGET, keep_sources=True)


@pytest.fixture(scope="module")
def found(artifact: Artifact) -> Explanation:
    return Explanation(artifact)


def write(directory: Path, text: str) -> Path:
    path = directory / "program.py"
    path.write_text(text)
    return path


def test_it_tells_the_schedule_the_estimate_and_the_steps(crossfarm: Crossfarm, farm: Farm, tmp_path: Path) -> None:
    ran = crossfarm("explain", write(tmp_path, programs.ADD), "--target", TARGET, farm=farm)
    assert ran.returncode == 0, ran.stderr
    for part in ("function main", "schedule", "estimate", "operations 8 ", "steps", "lower_blocks", "plan_workspace"):
        assert part in ran.stdout


def test_every_block_is_accounted_for(found: Explanation) -> None:
    decided = {(choice.function, block) for choice in found.choices for block in choice.blocks}
    assert decided == {("double", "C"), ("half", "C")}
    assert all(choice.reason for choice in found.choices)


def test_the_rules_trace_replays_to_what_they_made(farm: Farm) -> None:
    found = Explanation(farm.build(cf.load(str(EXAMPLES / "matmul.py")), target=TARGET, keep_sources=True))
    assert {choice.rule for choice in found.choices} == {"matmul"}
    assert "sch." in found.traces["main"]
    schedule = cf.Schedule(found.scheduled_from)
    found.trace("main").apply_to(schedule)
    (made,) = found.steps_named("schedule_default")
    assert cf.structural_equal(schedule.module, made.module)


def test_a_function_that_is_left_as_written_has_no_trace(farm: Farm) -> None:
    found = Explanation(farm.build(cf.parse(programs.ADD), target=TARGET, keep_sources=True, schedule="none"))
    assert found.traces == {}
    with pytest.raises(NotFound, match="main"):
        found.trace("main")


def test_each_step_is_a_module_and_the_last_one_is_lowered(found: Explanation) -> None:
    assert [step.number for step in found.steps] == list(range(len(found.steps)))
    assert all(set(step.module.functions) == {"double", "half"} for step in found.steps)
    assert "T.block" in found.steps[0].script
    assert "T.block" not in found.steps[-1].script


def test_a_step_is_printed_by_name_or_number(crossfarm: Crossfarm, farm: Farm, tmp_path: Path) -> None:
    program = write(tmp_path, programs.ADD)
    by_name = crossfarm("explain", program, "--step", "lower_blocks", farm=farm).stdout
    assert by_name.startswith("# after step")
    cf.parse(by_name)
    number = by_name.split("step ")[1].split(",")[0]
    assert crossfarm("explain", program, "--step", number, farm=farm).stdout == by_name
    assert crossfarm("explain", program, "--step", "simplify", farm=farm).stdout.count("# after step") > 1
    ran = crossfarm("explain", program, "--step", "lower_block", farm=farm)
    assert ran.returncode == 1
    assert "lower_blocks" in ran.stderr


def test_assembly_and_llvm_are_printed_on_demand(crossfarm: Crossfarm, farm: Farm, tmp_path: Path) -> None:
    program = write(tmp_path, programs.TWO)
    both = crossfarm("explain", program, "--target", TARGET, "--assembly", farm=farm).stdout
    assert "crossfarm_double:" in both
    assert "crossfarm_half:" in both
    one = crossfarm("explain", program, "--target", TARGET, "--assembly", "--function", "half", farm=farm).stdout
    assert "crossfarm_half:" in one
    assert "crossfarm_double:" not in one
    assert "define" in crossfarm("explain", program, "--llvm", farm=farm).stdout


def test_json_is_one_document_with_everything(crossfarm: Crossfarm, farm: Farm, tmp_path: Path) -> None:
    ran = crossfarm("explain", write(tmp_path, programs.TWO), "--json", "--assembly", "-t", TARGET, farm=farm)
    document: dict[str, Any] = json.loads(ran.stdout)
    assert document["target"]["cpu"] == TARGET
    assert set(document["functions"]) == {"double", "half"}
    estimate = document["functions"]["double"]["estimate"]
    assert (estimate["operations"], estimate["bytes_read"], estimate["bytes_written"]) == (4, 16, 16)
    assert 0 < estimate["share_of_peak"] <= 1
    assert document["steps"][0]["name"] == "refuse_thread_bindings"
    assert "crossfarm_half" in document["assembly"]


def test_only_the_function_asked_for_is_shown(crossfarm: Crossfarm, farm: Farm, tmp_path: Path) -> None:
    program = write(tmp_path, programs.TWO)
    ran = crossfarm("explain", program, "--function", "half", "--json", farm=farm)
    document = json.loads(ran.stdout)
    assert list(document["functions"]) == ["half"]
    assert all(list(cf.parse(step["module"]).functions) == ["half"] for step in document["steps"])
    ran = crossfarm("explain", program, "--function", "third", farm=farm)
    assert ran.returncode == 1
    assert "double, half" in ran.stderr


def test_sizes_that_are_symbols_are_given_for_the_estimate(crossfarm: Crossfarm, farm: Farm, tmp_path: Path) -> None:
    program = write(tmp_path, SYMBOLIC)
    assert "--size n=" in crossfarm("explain", program, farm=farm).stdout
    sized = crossfarm("explain", program, "--size", "n=10", "--size", "m=100", "--json", farm=farm)
    assert json.loads(sized.stdout)["functions"]["main"]["estimate"]["bytes_written"] == 4000
    with pytest.raises(ArgumentError, match="'n'"):
        Explanation(farm.build(cf.parse(SYMBOLIC), keep_sources=True)).estimate("main")


def test_an_artifact_explains_itself_without_a_farm(crossfarm: Crossfarm, artifact: Artifact, tmp_path: Path) -> None:
    artifact.save(tmp_path / "two.cfa")
    ran = crossfarm("--tracker", "127.0.0.1:1", "explain", "two.cfa", "--function", "double")
    assert ran.returncode == 0, ran.stderr
    assert "function double" in ran.stdout


def test_each_variant_has_its_own_explanation(farm: Farm) -> None:
    built = farm.build(cf.parse(programs.ADD), target=[TARGET, "aarch64-linux-generic"], keep_sources=True)
    first, second = (Explanation(built, variant) for variant in range(2))
    assert (first.core.vector_bytes, second.core.vector_bytes) == (32, 16)
    assert "vadd" in first.assembly()
    assert "fadd" in second.assembly()
    with pytest.raises(NotFound, match="no variant 2"):
        Explanation(built, 2)


def test_an_artifact_that_kept_nothing_says_how_to_get_one(farm: Farm) -> None:
    with pytest.raises(NotFound) as refused:
        Explanation(farm.build(cf.parse(programs.ADD), target=TARGET))
    assert "--keep-sources" in refused.value.hint


@pytest.mark.parametrize("text", ["", "{}", '{"version": 99}', '{"version": 1, "choices": [{}], "traces": {}}', "[]"])
def test_schedules_of_another_form_are_refused(text: str) -> None:
    variant = Variant(target=Target(TARGET).to_proto(), runtime="cpu", entry_points=[EntryPoint(name="main")])
    strange = write_artifact("strange", [variant], [b""], sources=[{"schedules.json": text}])
    with pytest.raises(InvalidArtifact, match=r"schedules\.json"):
        Explanation(strange)


def test_only_one_text_is_printed_at_a_time(crossfarm: Crossfarm, tmp_path: Path) -> None:
    ran = crossfarm("explain", write(tmp_path, programs.ADD), "--llvm", "--assembly")
    assert ran.returncode == 2


def test_a_graph_function_is_told_with_the_programs_that_it_became(
    crossfarm: Crossfarm, farm: Farm, tmp_path: Path
) -> None:
    b = Builder()
    x, w = (b.parameter(name, TensorType(dims.dims((4, 4)), "float32")) for name in "xw")
    path = tmp_path / "model.cfir"
    IRModule({"main": b.function(b.op("matmul", b.op("matmul", x, w), w))}).save(path)
    ran = crossfarm("explain", path, "--target", TARGET, farm=farm)
    assert ran.returncode == 0, ran.stderr
    for part in ("function main", "main makes 2 calls of other functions", "function matmul", "operations 128 "):
        assert part in ran.stdout
    ran = crossfarm("explain", path, "--target", TARGET, "-f", "matmul", "--step", "all", farm=farm)
    assert ran.returncode == 0, ran.stderr
    assert ran.stdout.count("there is no matmul here") < ran.stdout.count("def matmul")
