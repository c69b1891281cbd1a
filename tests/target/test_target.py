"""Targets: how they are written, what they say, what is refused and with which words."""

from __future__ import annotations

import copy
import json
import pickle

import pytest
from hypothesis import given
from hypothesis import strategies as st

from crossfarm.errors import Error, InvalidTarget
from crossfarm.target import KINDS, TAGS, Target, known_words, merge, misfit
from crossfarm.target import cpu as cpus
from crossfarm.wire.v1 import artifact_pb2


@pytest.mark.parametrize("word", [*KINDS, *TAGS, "native", "aarch64-linux-android", "x86_64-unknown-linux-gnu"])
def test_every_word_is_a_target_that_round_trips_through_json_and_protobuf(word: str) -> None:
    target = Target(word)
    assert Target.from_json(target.to_json()) == target
    assert Target.from_proto(artifact_pb2.Target.FromString(target.to_proto().SerializeToString())) == target
    assert Target(target.to_json()) == Target(target) == copy.deepcopy(target) == pickle.loads(pickle.dumps(target))  # noqa: S301
    assert hash(Target.from_json(target.to_json())) == hash(target)
    assert target.resolved().resolved() == target.resolved()
    assert str(target)


@pytest.mark.parametrize("tag", TAGS)
def test_a_tag_is_no_identity(tag: str) -> None:
    tagged = Target(tag)
    tree = json.loads(tagged.to_json())
    assert tree.pop("tag") == tag == tagged.tag
    plain = Target(tree)
    assert plain == tagged
    assert plain.tag == ""
    assert Target({"tag": tag}) == tagged
    assert repr(tagged) == f"Target({tag!r})"


def test_spellings_of_one_target_are_equal() -> None:
    spelled = {"kind": "llvm", "arch": "aarch64", "os": "linux", "cpu": "cortex-a72", "features": ["+crc"]}
    assert Target("llvm arch=aarch64 os=linux cpu=cortex-a72 features=+crc") == Target(spelled)
    assert Target(json.dumps(spelled)) == Target(spelled)
    assert Target("aarch64-linux-gnu cpu=cortex-a72 features=+crc") == Target(spelled)
    assert Target(str(Target(spelled))) == Target(spelled)


def test_a_device_and_its_host_take_one_line() -> None:
    target = Target("opencl", host="aarch64-linux-android")
    assert target.kind == "opencl"
    assert target.host is not None
    assert (target.host.attributes["arch"], target.host.attributes["os"]) == ("aarch64", "android")
    assert Target({"kind": "opencl", "host": "aarch64-linux-android"}) == target


def test_several_targets_are_one() -> None:
    target = Target(["x86-64-v3", "aarch64-linux-generic"])
    assert target == Target("any-cpu")
    assert target.kind == "multi"
    assert target.variants() == (Target("x86-64-v3"), Target("aarch64-linux-generic"))
    assert Target("llvm").variants() == (Target("llvm"),)


def test_plain_llvm_stays_open_when_it_travels_and_answers_for_the_machine_it_is_asked_on() -> None:
    target = Target("llvm")
    assert dict(target.given) == {}
    assert target.attributes["arch"] == cpus.host_arch()
    assert target.attributes["os"] == "linux"
    assert target.attributes["cpu"] in cpus.MODELS[cpus.host_arch()]
    assert target.enabled_features() <= cpus.host_cpu_features()


def test_the_detected_target_needs_nothing_this_machine_lacks() -> None:
    target = Target.detect()
    assert target == Target("native")
    assert target.enabled_features() == cpus.host_cpu_features()
    assert target.buildable_reason() is None


def test_a_board_without_crypto_does_not_get_code_that_uses_it() -> None:
    assert "aes" in cpus.MODELS["aarch64"]["cortex-a72"]
    assert "aes" not in Target("raspberry-pi/4b").enabled_features()
    assert "crc" in Target("raspberry-pi/4b").enabled_features()


def test_labels_are_short() -> None:
    assert Target("raspberry-pi/4b").label == "raspberry-pi/4b"
    assert Target("aarch64-linux-android cpu=cortex-x1").label == "llvm aarch64-android cortex-x1"
    assert Target(["aarch64-linux", "opencl model=Mali-G78"]).label == "llvm aarch64-linux generic, opencl Mali-G78"
    assert Target.detect().label.startswith("llvm ")


def test_vector_width_follows_the_features() -> None:
    widths = {f"x86-64-v{n}": Target(f"x86-64-v{n}").attributes["vector_bits"] for n in (2, 3, 4)}
    assert widths == {"x86-64-v2": 128, "x86-64-v3": 256, "x86-64-v4": 512}
    assert Target("raspberry-pi/5").attributes["vector_bits"] == 128


@pytest.mark.parametrize(
    ("spec", "message", "hint"),
    [
        ("raspbery-pi/4b", "unknown target 'raspbery-pi/4b'", "raspberry-pi/4b"),
        ("lvm", "unknown target 'lvm'", "llvm"),
        ("", "cannot be empty", "llvm"),
        ({"kind": "opencll"}, "unknown target kind 'opencll'", "opencl"),
        ({"arch": "aarch64"}, "needs a 'kind'", "llvm"),
        ({"kind": "llvm", "archh": "aarch64"}, "no attribute 'archh'", "'arch'"),
        ({"kind": "llvm", "arch": "aarch65"}, "cannot be 'aarch65'", "aarch64"),
        ({"kind": "llvm", "cores": "4"}, "must be an integer", ""),
        ({"kind": "llvm", "cores": True}, "must be an integer", ""),
        ({"kind": "llvm", "cores": -1}, "between 0", ""),
        ({"kind": "llvm", "features": "+avx"}, "must be a list of strings", ""),
        ({"kind": "llvm", "arch": "x86_64", "cpu": "cortex-a72"}, "unknown CPU model of x86_64", "known are"),
        ({"kind": "llvm", "cpu": "cortex-b72"}, "unknown CPU model", "cortex-a72"),
        ("llvm features=+avx3", "unknown CPU feature", "avx2"),
        ("llvm features=avx2", "needs a sign", "+avx2"),
        ("llvm -mcpu=znver4", "cannot read '-mcpu=znver4'", "name=value"),
        ("aarch64-linux-foo", "unknown ABI 'foo'", "android"),
        ({"kind": "llvm", "host": "x86-64-v2"}, "a CPU target has no host", ""),
        ({"kind": "opencl", "host": "cuda"}, "a host must be a CPU target", ""),
        ({"kind": "multi", "targets": ["x86-64-v2", "x86-64-v2"]}, "twice", ""),
        ({"kind": "multi", "targets": []}, "between 1 and", ""),
        ([["x86-64-v2"]], "cannot hold another", "list the parts"),
        ({"targets": ["llvm"], "arch": "arm"}, "no attributes", ""),
        ({"kind": "llvm", "targets": ["llvm"]}, "no sub-targets", ""),
        ("{", "does not parse", ""),
        ("[" * 5000, "does not parse", ""),
        (7, "cannot make a target", "word"),
        ({"kind": "llvm", "model": "x" * 300}, "longer than", ""),
    ],
)
def test_what_is_wrong_is_named_and_the_nearest_known_suggested(spec: object, message: str, hint: str) -> None:
    with pytest.raises(InvalidTarget) as failure:
        Target(spec)  # type: ignore[arg-type]
    assert message in failure.value.message
    assert hint in failure.value.hint


@pytest.mark.parametrize("word", ["aarch64-windows-msvc", "x86_64-apple-darwin"])
def test_kinds_to_come_validate_and_say_that_they_cannot_be_built_yet(word: str) -> None:
    assert "this server cannot build for it yet" in (Target(word).buildable_reason() or "")


@pytest.mark.parametrize(
    "word", ["llvm", "x86-64-v2", "raspberry-pi/4b", "aarch64-android-generic", "armv7-linux-generic", "any-cpu"]
)
def test_cpus_of_every_architecture_can_be_built(word: str) -> None:
    assert Target(word).buildable_reason() is None


def test_merging_takes_what_either_side_says() -> None:
    merged = merge("llvm arch=x86_64 features=+avx2,+fma", "llvm os=linux features=+fma,+bmi2")
    assert merged == Target("llvm arch=x86_64 os=linux features=+avx2,+fma,+bmi2")
    assert merge("raspberry-pi/4b", "llvm cores=4").tag == "raspberry-pi/4b"
    with_host = merge("opencl fp16=true", Target("opencl", host="aarch64-linux-android"))
    assert with_host.host == Target("aarch64-linux-android")
    assert with_host.given["fp16"] is True


@pytest.mark.parametrize(
    ("a", "b", "message"),
    [
        ("llvm cpu=haswell", "llvm cpu=znver4", "cpu is 'haswell' in one and 'znver4' in the other"),
        ("llvm", "opencl", "kind is 'llvm' in one and 'opencl'"),
        ("llvm features=+aes", "llvm features=-aes", "features has +aes in one and -aes"),
        ("any-cpu", "llvm", "multi-targets merge only with equal ones"),
        ("raspberry-pi/4b", "raspberry-pi/5", "in one and"),
    ],
)
def test_conflicts_of_a_merge_are_errors(a: str, b: str, message: str) -> None:
    for left, right in ((a, b), (b, a)):
        with pytest.raises(InvalidTarget) as failure:
            merge(left, right)
        assert "cannot merge" in failure.value.message
    with pytest.raises(InvalidTarget) as failure:
        merge(a, b)
    assert message in failure.value.message


@pytest.mark.parametrize(
    ("wanted", "target", "reason"),
    [
        ("llvm", "raspberry-pi/4b", None),
        ("raspberry-pi/4b", "llvm arch=aarch64 cpu=cortex-a72 features=-aes,-sha2 memory_bytes=4000000000", None),
        ("llvm features=+avx2", "x86-64-v3", None),
        ("llvm features=+avx512f", "x86-64-v3", "avx512f"),
        ("llvm features=-avx2", "x86-64-v3", "avx2"),
        ("llvm", "opencl", "llvm is not opencl"),
        ("cuda sm=53", "nvidia/jetson-orin-nx", "sm is 53 in one and 87 in the other"),
        ("opencl fp16=true", "opencl", "fp16 is True in one and False in the other"),
        ("opencl extensions=cl_khr_fp16", "opencl", "cl_khr_fp16"),
        ("any-cpu", "x86-64-v3", None),
        ("any-cpu", "vulkan", "llvm is not vulkan"),
    ],
)
def test_what_is_meant_for_one_target_fits_another_that_says_nothing_else(
    wanted: str, target: str, reason: str | None
) -> None:
    found = misfit(Target(wanted), Target(target))
    assert found == reason if reason is None else reason in (found or "")


def test_a_target_cannot_be_changed() -> None:
    with pytest.raises(AttributeError):
        Target("llvm").kind = "cuda"  # type: ignore[misc]
    with pytest.raises(TypeError):
        Target("llvm").given["arch"] = "arm"  # type: ignore[index]


def test_every_model_names_only_known_features_and_every_baseline_exists() -> None:
    for arch, models in cpus.MODELS.items():
        for model, features in models.items():
            assert features <= cpus.FEATURES[arch], (arch, model)
        assert cpus.BASELINE[arch] in models


def test_a_message_nested_too_deep_is_refused() -> None:
    message = artifact_pb2.Target(kind="llvm")
    for _ in range(8):
        message = artifact_pb2.Target(kind="opencl", host=message)
    with pytest.raises(InvalidTarget, match="nested too deep"):
        Target.from_proto(message)


def _attributes(kind: str) -> st.SearchStrategy[dict[str, object]]:
    by_type = {
        str: st.text(max_size=20),
        int: st.integers(0, 2**40),
        bool: st.booleans(),
        tuple: st.lists(st.text(max_size=10), max_size=4),
    }
    plain = {n: by_type[a.type] for n, a in KINDS[kind].attributes.items() if not a.choices}
    if kind == "llvm":
        plain["cpu"] = plain["tune"] = st.sampled_from(sorted(cpus.MODELS["x86_64"]))
        plain["features"] = st.lists(st.sampled_from(["+avx2", "-aes", "+fma"]), max_size=3)
    return st.fixed_dictionaries({}, optional=plain)


_TARGETS = st.sampled_from(sorted(KINDS)).flatmap(lambda k: _attributes(k).map(lambda at: {"kind": k, **at}))


@given(_TARGETS)
def test_any_valid_target_round_trips(tree: dict[str, object]) -> None:
    target = Target(tree)
    assert Target(target.to_json()) == target
    assert Target.from_proto(artifact_pb2.Target.FromString(target.to_proto().SerializeToString())) == target
    assert merge(target, target) == target


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.text(), lambda x: st.lists(x) | st.dictionaries(st.text(), x)
    )
)
def test_whatever_json_says_the_answer_is_a_target_or_our_error(tree: object) -> None:
    try:
        Target(json.dumps(tree))
    except Error:
        pass


@given(st.text())
def test_whatever_the_word_the_answer_is_a_target_or_our_error(word: str) -> None:
    try:
        Target(word)
    except InvalidTarget:
        pass


def test_known_words_all_make_targets() -> None:
    assert all(Target(word).kind for word in known_words())
