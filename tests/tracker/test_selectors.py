"""The selector language: what matches, what is refused and where, and that printing reads back."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from crossfarm.errors import InvalidSelector
from crossfarm.selectors import MAX_LENGTH, Condition, Selector, parse

PIXEL = {
    "id": "bench/pixel-6",
    "name": "Pixel 6",
    "kind": "gpu",
    "arch": "aarch64",
    "os": "android",
    "memory": str(8 << 30),
    "driver": "535.104.05",
    "usb": "true",
    "rooted": "false",
    "note": 'says "hi", twice',
}


@pytest.mark.parametrize(
    "text",
    [
        "",
        "  ",
        "kind=gpu",
        "kind==gpu",
        "os:android",
        "kind = GPU , arch=AArch64",
        "kind!=cpu",
        "serial!=3",
        "memory>=2GiB",
        "memory>=8192MiB,memory<=8GiB,memory=8GiB",
        "memory>8G,memory<9GB",
        "memory>0.5KiB",
        "driver>535.99,driver>=535.104.5,driver<536",
        "name~=pixel*",
        "name~=*[456]",
        "usb",
        "!rooted,!serial",
        "id=bench/pixel-6",
        r'note="says \"hi\", twice"',
    ],
)
def test_a_device_that_meets_every_condition_is_selected(text: str) -> None:
    assert parse(text).matches(PIXEL)
    assert parse(text).misses(PIXEL) == []


@pytest.mark.parametrize(
    "text",
    ["kind=cpu", "kind!=gpu", "memory>8GiB", "memory<1K", "serial>=1", "arch>=4", "name~=galaxy*", "rooted", "!usb"],
)
def test_a_device_that_misses_a_condition_is_not(text: str) -> None:
    assert not parse(text).matches(PIXEL)
    assert [str(c) for c in parse(text).misses(PIXEL)] == [text]


def test_misses_names_only_the_conditions_not_met_in_order() -> None:
    assert [str(c) for c in parse("kind=cpu,arch=aarch64,memory>=16GiB").misses(PIXEL)] == ["kind=cpu", "memory>=16GiB"]


@pytest.mark.parametrize(
    ("text", "column", "says"),
    [
        ("kind=", 6, "expected a value"),
        ("kind=cpu,", 10, "after the comma"),
        (",kind=cpu", 1, "name of an attribute"),
        ("kind=cpu,,usb", 10, "name of an attribute"),
        ("memory=>2GiB", 8, "is >= meant"),
        ("memory>=lots", 9, "needs a quantity"),
        ("!kind=cpu", 1, "before a bare name"),
        ('name="pixel', 6, "no end"),
        ("kind=a=b", 7, "comma between"),
        ("kind cpu", 6, "comma between"),
        ("2kind=cpu", 1, "name of an attribute"),
        ("__import__('os')", 11, "comma between"),
    ],
)
def test_a_selector_that_does_not_parse_points_at_the_column(text: str, column: int, says: str) -> None:
    with pytest.raises(InvalidSelector) as caught:
        parse(text)
    assert caught.value.details["column"] == str(column)
    assert says in str(caught.value)
    _, shown, mark = caught.value.message.split("\n")
    assert shown.strip() == text
    assert mark.index("^") == shown.index(text) + column - 1


def test_a_selector_as_long_as_a_book_is_refused() -> None:
    with pytest.raises(InvalidSelector, match="limit"):
        parse("a" * (MAX_LENGTH + 1))


_KEYS = st.from_regex(r"[A-Za-z_][A-Za-z0-9_./-]{0,8}", fullmatch=True)
_CONDITIONS = st.one_of(
    st.builds(Condition, _KEYS, st.sampled_from(["=", "!=", "~="]), st.text(max_size=12)),
    st.builds(
        Condition, _KEYS, st.sampled_from([">=", "<=", ">", "<"]), st.sampled_from(["2GiB", "0", "1.5", "1.2.3"])
    ),
    st.builds(Condition, _KEYS, st.sampled_from(["has", "lacks"])),
)


@given(st.lists(_CONDITIONS, max_size=5))
def test_what_is_printed_reads_back_the_same(conditions: list[Condition]) -> None:
    selector = Selector(tuple(conditions))
    assert parse(str(selector)) == selector
    assert str(parse(str(selector))) == str(selector)


@given(st.text(max_size=40))
def test_any_text_is_read_or_refused_as_invalid(text: str) -> None:
    try:
        selector = parse(text)
    except InvalidSelector:
        return
    assert selector.matches(PIXEL) == (not selector.misses(PIXEL))


@given(st.dictionaries(_KEYS, st.text(max_size=8)))
def test_the_empty_selector_takes_every_device(attributes: dict[str, str]) -> None:
    assert parse("").matches(attributes)
