"""Signatures: what a call's arguments must be, what they make of the sizes, and how mistakes are told."""

from __future__ import annotations

import numpy as np
import pytest

from crossfarm.artifact.signature import Signature
from crossfarm.artifact.sizes import expression
from crossfarm.errors import ArgumentError
from crossfarm.wire.v1.artifact_pb2 import EntryPoint, Parameter
from tests.artifact import samples

A = np.zeros((4, 128), np.float32)
B = np.zeros((128, 7), np.float32)
C = np.zeros((4, 8), np.float32)


@pytest.fixture
def main() -> Signature:
    return Signature(samples.entry_point())


def test_a_signature_reads_like_a_function(main: Signature) -> None:
    assert str(main) == "main(A: float32[n, 128], B: float32[128, m], s: int32) -> C: float32[n, m + 1]"


def test_sizes_follow_from_the_arguments(main: Signature) -> None:
    binding = main.bind(main.arrange([A, B, 3]))
    assert binding.symbols == (4, 7)
    assert binding.shapes == ((4, 128), (128, 7), None, (4, 8))
    assert binding.nbytes == (4 * 128 * 4, 128 * 7 * 4, 0, 4 * 8 * 4)
    assert binding.workspace_bytes == 4 * 64
    assert main.bind([A, B, 5, C]) == binding
    assert main.bind(main.arrange([A, B, 5], out=C)) == binding
    assert main.bind(main.arrange([A, B, 5], out=[C])) == binding


@pytest.mark.parametrize(
    ("args", "message"),
    [
        ([A], "main takes 3 arguments (A, B, s), got 1"),
        ([A, B, 3, C, C], "main takes 3 arguments (A, B, s), got 5"),
        ([A.astype("f8"), B, 3], "argument A must have dtype float32, got float64"),
        ([A[0], B, 3], "argument A must have 2 dimensions (A: float32[n, 128]), got shape (128,)"),
        ([A, B[1:], 3], "argument B must have shape (128, 7) (B: float32[128, m], where n = 4, m = 7), got (127, 7)"),
        ([A, B, 3, C[1:]], "argument C must have shape (4, 8)"),
        ([A, 3, 3], "argument B must be an array (B: float32[128, m]), got int"),
        ([A, B, "3"], "argument s must be an integer (int32), got str"),
        ([A, B, 1.5], "argument s must be an integer (int32), got float"),
        ([A, B, 2**31], "argument s must lie in int32's -2147483648 to 2147483647, got 2147483648"),
        ([None, B, 3, C], "argument A is missing"),
        ([A, B, A], "argument s must be an integer (int32), got ndarray"),
        ([A.tolist(), B, 3], "argument A must be an array"),
    ],
)
def test_a_wrong_argument_is_named_with_what_was_expected_and_what_came(
    main: Signature, args: list[object], message: str
) -> None:
    for _ in range(2):  # the second time past what was remembered
        with pytest.raises(ArgumentError) as failure:
            main.bind(main.arrange(args))
        assert message in failure.value.message
        main.bind([A, B, 3, C])


def test_a_wrong_scalar_is_found_behind_remembered_shapes(main: Signature) -> None:
    main.bind([A, B, 3, C])
    with pytest.raises(ArgumentError, match="argument s"):
        main.bind([A, B, 2**40, C])


def test_wrong_outputs_are_counted(main: Signature) -> None:
    with pytest.raises(ArgumentError, match=r"1 output \(C\), out= gives 2"):
        main.arrange([A, B, 3], out=[C, C])


def test_the_number_of_entries_is_checked_without_arrange(main: Signature) -> None:
    for args in ([A, B, 3], [A, B, 3, C, C], []):
        with pytest.raises(ArgumentError, match="4 parameters"):
            main.bind(args)


def _function(symbols: list[str], **parameters: tuple[str, int, list[object]]) -> Signature:
    index = {name: i for i, name in enumerate(symbols)}
    entry = EntryPoint(name="f", symbols=symbols)
    for name, (dtype, role, shape) in parameters.items():
        kind = Parameter.BUFFER if role else Parameter.SCALAR
        entry.parameters.add(
            name=name,
            kind=kind,
            dtype=dtype,
            role=role or None,
            shape=[expression(e, index) for e in shape],  # type: ignore[arg-type]
        )
    return Signature(entry)


def test_a_scalar_parameter_may_be_a_size() -> None:
    f = _function(["n"], n=("int32", 0, []), Y=("float32", Parameter.OUT, ["n", ("MUL", "n", 2)]))
    assert f.bind(f.arrange([3])).shapes == (None, (3, 6))
    assert f.bind(f.arrange([4])).shapes == (None, (4, 8))
    with pytest.raises(ArgumentError, match=r"must have shape \(3, 6\)"):
        f.bind([3, np.zeros((4, 8), np.float32)])


def test_a_size_that_only_an_output_defines_needs_the_output() -> None:
    f = _function(["n"], Y=("float32", Parameter.OUT, ["n"]))
    with pytest.raises(ArgumentError, match="size 'n' is not defined") as failure:
        f.bind(f.arrange([]))
    assert "out=" in failure.value.hint
    assert f.bind(f.arrange([], out=np.zeros(5, np.float32))).symbols == (5,)


def test_sizes_that_cannot_be_are_refused() -> None:
    f = _function(["n"], X=("float32", Parameter.IN, ["n"]), Y=("float32", Parameter.OUT, [("SUB", "n", 3)]))
    with pytest.raises(ArgumentError, match="size n - 3 of argument Y is -1"):
        f.bind(f.arrange([np.zeros(2, np.float32)]))
    f = _function(["n"], X=("float32", Parameter.IN, ["n"]), Y=("float32", Parameter.OUT, [("FLOORDIV", 6, "n")]))
    assert f.bind(f.arrange([np.zeros(2, np.float32)])).shapes[1] == (3,)
    with pytest.raises(ArgumentError, match="divides by zero"):
        f.bind(f.arrange([np.zeros(0, np.float32)]))
    f = _function(["n"], X=("int8", Parameter.IN, ["n"]), Y=("int8", Parameter.OUT, [("MUL", "n", 1 << 50)]))
    with pytest.raises(ArgumentError, match="would have"):
        f.bind(f.arrange([np.zeros(2, np.int8)]))


@pytest.mark.parametrize(
    ("text", "value"),
    [("min(n, 3) * 2", 6), ("max(n, 9) % 4", 1), ("n // 2 - 1", 1), ("(n + 1) * (n - 1)", 24)],
)
def test_expressions_mean_what_they_show(text: str, value: int) -> None:
    trees: dict[str, object] = {
        "min(n, 3) * 2": ("MUL", ("MIN", "n", 3), 2),
        "max(n, 9) % 4": ("FLOORMOD", ("MAX", "n", 9), 4),
        "n // 2 - 1": ("SUB", ("FLOORDIV", "n", 2), 1),
        "(n + 1) * (n - 1)": ("MUL", ("ADD", "n", 1), ("SUB", "n", 1)),
    }
    f = _function(["n"], X=("int8", Parameter.IN, ["n"]), Y=("int8", Parameter.OUT, [trees[text]]))
    assert f.bind(f.arrange([np.zeros(5, np.int8)])).shapes[1] == (value,)
    shown = f.describe(1).removeprefix("Y: int8[").removesuffix("]")
    assert eval(shown, {"n": 5, "min": min, "max": max}) == value  # noqa: S307 - the text is ours


def test_zero_sized_and_zero_dimensional_arguments_bind() -> None:
    f = _function(["n"], X=("float32", Parameter.IN, ["n"]), s=("float32", Parameter.IN, []))
    binding = f.bind([np.zeros(0, np.float32), np.zeros((), np.float32)])
    assert binding.shapes == ((0,), ())
    assert binding.nbytes == (0, 4)


@pytest.mark.parametrize(
    ("dtype", "value", "bits"),
    [
        ("int32", -1, 2**64 - 1),
        ("uint8", 255, 255),
        ("uint64", 2**64 - 1, 2**64 - 1),
        ("bool", True, 1),
        ("float32", 1.0, 0x3F800000),
        ("float64", -2.0, 0xC000000000000000),
        ("float16", 1, 0x3C00),
        ("bfloat16", 1.0, 0x3F80),
        ("int64", np.int64(-2), 2**64 - 2),
    ],
)
def test_scalars_become_their_slots(dtype: str, value: object, bits: int) -> None:
    assert _function([], s=(dtype, 0, [])).scalar_bits(0, value) == bits


def test_strided_parameters_take_compact_arrays_of_the_very_strides() -> None:
    entry = EntryPoint(name="f", symbols=["s"])
    shape, strides = [expression(e, {}) for e in (4, 8)], [expression(e, {"s": 0}) for e in ("s", 1)]
    entry.parameters.add(name="X", kind=Parameter.BUFFER, dtype="int8", role=Parameter.IN, shape=shape, strides=strides)
    assert Signature(entry).bind([np.zeros((4, 8), np.int8)]).symbols == (8,)
    entry.parameters[0].strides[0].CopyFrom(expression(16, {}))
    del entry.symbols[:]
    with pytest.raises(ArgumentError, match="needs strides"):
        Signature(entry).bind([np.zeros((4, 8), np.int8)])


def test_remembered_shapes_do_not_grow_without_end(main: Signature) -> None:
    for m in range(3000):
        assert main.bind([A, np.empty((128, m), np.float32), 0, None]).symbols == (4, m)
    assert len(main._cache) <= 1024


def test_constants_are_neither_asked_for_nor_returned() -> None:
    entry = samples.entry_point()
    entry.parameters.add(
        name="W",
        kind=Parameter.BUFFER,
        dtype="float32",
        role=Parameter.IN,
        shape=[expression(3, {})],
        constant="sha256:" + "0" * 64,
    )
    f = Signature(entry)
    assert str(f) == str(Signature(samples.entry_point()))
    assert f.constants == (4,)
    placed = f.arrange([A, B, 3])
    assert placed[-1] is None
    assert f.arrange([A, B, 3, C])[3:] == [C, None]
    assert f.bind(placed).shapes[-1] == (3,)
    assert f.bind([*placed[:-1], np.zeros(3, np.float32)]).nbytes[-1] == 12
    with pytest.raises(ArgumentError, match="takes 3 arguments"):
        f.arrange([A, B, 3, C, np.zeros(3, np.float32)])
    with pytest.raises(ArgumentError, match=r"W must have shape \(3,\)"):
        f.bind([*placed[:-1], np.zeros(4, np.float32)])
