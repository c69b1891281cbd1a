"""What a device's answer and an artifact's words make of a profile, and answers and words that do not fit."""

from __future__ import annotations

import pytest

from clients.sdk.profile import Profile, profile_of
from crossfarm.artifact import Signature
from crossfarm.artifact.sizes import expression
from crossfarm.errors import InvalidArtifact
from crossfarm.wire.v1.artifact_pb2 import EntryPoint, IndexExpr, Launch, LaunchPlan, Parameter, Step
from crossfarm.wire.v1.session_pb2 import Reply


def size(value: int | str | tuple[object, ...]) -> IndexExpr:
    return expression(value, {"n": 0})


X = Parameter(name="x", kind=Parameter.BUFFER, dtype="float32", shape=[size("n")], role=Parameter.IN)
STEPS = [
    Step(function="softmax", origin="Softmax_0", operations=size(("MUL", "n", 5)), bytes=size(8), launches=2),
    Step(function="check"),
    Step(function="scale", operations=size("n"), bytes=size(("FLOORDIV", 1, "n")), launches=1),
]
PLAN = LaunchPlan(launches=[Launch(kernel=name) for name in ("rows", "divide", "scale_kernel")])


def profile(*seconds: float, steps: list[Step] = STEPS, parts: int = 3, whole: bool = False, n: int = 4) -> Profile:
    entry = EntryPoint(name="main", parameters=[X], symbols=["n"], launch=PLAN, steps=steps)
    return profile_of(Signature(entry), [n], Reply.Profiled(seconds=seconds, parts=parts, whole=whole))


def test_launches_are_those_of_their_steps_and_times_are_medians() -> None:
    found = profile(1, 2, 4, 2, 2, 4, 5, 5, 3)
    assert found.runs == ((3, 0, 4), (4, 0, 4), (10, 0, 3))
    assert [(s.function, s.origin, s.seconds, s.share) for s in found.steps] == [
        ("softmax", "Softmax_0", 4, 0.5),
        ("check", "", 0, 0),
        ("scale", "", 4, 0.5),
    ]
    assert [[(k.kernel, k.seconds) for k in s.kernels] for s in found.steps] == [
        [("rows", 2), ("divide", 2)],
        [],
        [("scale_kernel", 4)],
    ]
    assert found.total == 8


def test_rates_are_of_what_the_artifact_says_at_these_sizes() -> None:
    softmax, check, scale = profile(1, 1, 4).steps
    assert (softmax.operations, softmax.bytes, softmax.operations_per_second) == (20, 8, 10)
    assert (check.operations, check.bytes, check.bytes_per_second) == (None, None, None)
    assert softmax.cells() == ("2000000.0", "33.3%", "1e-08", "4e-09", "softmax", "Softmax_0")
    assert check.cells()[2:] == ("-", "-", "check", "-")
    assert (scale.operations, scale.bytes) == (4, 0)
    assert profile(1, 1, 4, n=0).steps[2].bytes is None, "what divides by a size that is 0 is not known"


def test_a_device_that_tells_the_whole_alone_is_believed() -> None:
    found = profile(3.0, 5.0, parts=1, whole=True, steps=[STEPS[0], STEPS[2]])
    (step,) = found.steps
    assert (found.whole, step.function, step.seconds, step.operations, step.kernels) == (True, "main", 4, 24, ())
    assert profile(3.0, parts=1, whole=True).steps[0].operations is None, "one of its steps is not known"


@pytest.mark.parametrize(
    ("seconds", "parts", "steps", "words"),
    [
        ((1, 2, 3, 4), 4, STEPS, "has 3 parts by its artifact, and 4 on the device"),
        ((1, 2, 3), 3, STEPS[:1], "has 2 parts by its artifact"),
        ((1, 2, 3, 4), 3, STEPS, "told 4 times of the 3 parts"),
        ((), 0, STEPS, "told 0 times"),
        ((1, 2, 3), 3, [Step(function="all", launches=3, bytes=IndexExpr(ops=[{"symbol": 7}]))], "malformed"),
    ],
)
def test_what_does_not_fit_is_refused(seconds: tuple[float, ...], parts: int, steps: list[Step], words: str) -> None:
    with pytest.raises(InvalidArtifact, match=words):
        profile(*seconds, parts=parts, steps=steps)
