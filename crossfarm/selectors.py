"""The selector language: which devices a request may be given.

::

    kind=cpu,arch=aarch64,memory>=2GiB,name~=pixel*,usb,!rooted

A selector is a list of conditions, separated by commas, all of which must hold; the empty selector takes every device.

| condition | holds when the device's attribute |
| --- | --- |
| ``key=value``, ``key==value``, ``key:value`` | equals the value |
| ``key!=value`` | is absent or differs |
| ``key>=value`` ``<=`` ``>`` ``<`` | is there, is comparable, and compares so |
| ``key~=glob`` | matches the glob (``*``, ``?``, ``[abc]``) |
| ``key`` / ``!key`` | is there and not ``false``, ``no`` or ``0`` / the opposite |

Text compares without regard to case. Quantities compare as numbers: ``2GiB`` equals ``2048MiB`` (``Ki`` ``Mi`` ``Gi``
``Ti`` count in 1024s, ``K`` ``M`` ``G`` ``T`` in 1000s; a final ``B`` is welcome). Dotted versions compare part by
part: ``535.104.05 > 535.99``. A value with a comma, a quote or an operator in it is written in double quotes, with
``\\`` before ``"`` and ``\\``.
Besides its attributes every device has ``id``, ``agent`` and ``name`` (its id, unless an attribute says otherwise).
"""

from __future__ import annotations

import fnmatch
import re
from collections.abc import Mapping
from dataclasses import dataclass
from fractions import Fraction

from crossfarm.errors import InvalidSelector

#: Longest selector text; a selector is typed by a person or a small script.
MAX_LENGTH = 4096
#: Each is looked up on every device of the farm.
MAX_CONDITIONS = 64

#: Tried in this order at a place where an operator may stand: the longer one first.
_OPERATORS = ("!=", ">=", "<=", "~=", "==", "=", ":", ">", "<")
_CANONICAL = {"==": "=", ":": "="}
_ORDERINGS = frozenset({">=", "<=", ">", "<"})

_KEY = re.compile(r"[A-Za-z_][A-Za-z0-9_./-]*")
_BARE = re.compile(r'[^\s,"<>=!~](?:[^,"<>=]*[^\s,"<>=])?')
_QUOTED = re.compile(r'"((?:[^"\\]|\\["\\])*)"')
_SPACE = re.compile(r"\s*")
# ASCII and bounded: a device's attribute is foreign text, and Python refuses to read endless integers.
_NUMBER = re.compile(r"(-?\d{1,30}(?:\.\d{1,30})?)([KMGT]i?)?B?", re.IGNORECASE | re.ASCII)
_VERSION = re.compile(r"\d{1,30}(?:\.\d{1,30}){0,9}", re.ASCII)
_FALSE = frozenset({"", "false", "no", "0"})


@dataclass(frozen=True)
class Condition:
    """One condition: ``operator`` is ``=``, ``!=``, ``>=``, ``<=``, ``>``, ``<``, ``~=``, ``has`` or ``lacks``."""

    key: str
    operator: str
    value: str = ""

    def holds(self, attributes: Mapping[str, str]) -> bool:
        """Whether a device with ``attributes`` meets this condition."""
        actual = attributes.get(self.key)
        if self.operator in ("has", "lacks"):
            return (actual is not None and actual.casefold() not in _FALSE) == (self.operator == "has")
        if actual is None:
            return self.operator == "!="
        if self.operator == "~=":
            return fnmatch.fnmatchcase(actual.casefold(), self.value.casefold())
        if self.operator in _ORDERINGS:
            order = _compare(actual, self.value)
            if order is None:
                return False
            return {">=": order >= 0, "<=": order <= 0, ">": order > 0, "<": order < 0}[self.operator]
        equal = actual.casefold() == self.value.casefold() or _compare(actual, self.value) == 0
        return equal == (self.operator == "=")

    def __str__(self) -> str:
        if self.operator == "has":
            return self.key
        if self.operator == "lacks":
            return f"!{self.key}"
        if _BARE.fullmatch(self.value):
            return f"{self.key}{self.operator}{self.value}"
        escaped = self.value.replace("\\", "\\\\").replace('"', '\\"')
        return f'{self.key}{self.operator}"{escaped}"'


@dataclass(frozen=True)
class Selector:
    """A parsed selector; immutable, hashable, and ``parse(str(selector)) == selector``."""

    conditions: tuple[Condition, ...] = ()

    def matches(self, attributes: Mapping[str, str]) -> bool:
        """Whether a device with ``attributes`` meets every condition."""
        return all(condition.holds(attributes) for condition in self.conditions)

    def misses(self, attributes: Mapping[str, str]) -> list[Condition]:
        """The conditions that a device with ``attributes`` does not meet, in the order they were written."""
        return [condition for condition in self.conditions if not condition.holds(attributes)]

    def __str__(self) -> str:
        return ",".join(map(str, self.conditions))


def parse(text: str) -> Selector:
    """Reads a selector.

    Raises:
        InvalidSelector: it does not parse; the message shows the text with a mark below the column.
    """
    if len(text) > MAX_LENGTH:
        raise InvalidSelector(f"a selector of {len(text)} characters: the limit is {MAX_LENGTH}")
    conditions: list[Condition] = []
    at = _skip_space(text, 0)
    while at < len(text):
        if len(conditions) == MAX_CONDITIONS:
            raise _invalid(
                text, at, f"more than {MAX_CONDITIONS} conditions", "give the devices a tag, and select that"
            )
        condition, at = _condition(text, at)
        conditions.append(condition)
        at = _skip_space(text, at)
        if at == len(text):
            break
        if text[at] != ",":
            raise _invalid(text, at, "expected a comma between conditions", 'put a value with such characters in "…"')
        at = _skip_space(text, at + 1)
        if at == len(text):
            raise _invalid(text, at, "expected a condition after the comma", "leave the last comma out")
    return Selector(tuple(conditions))


def _condition(text: str, at: int) -> tuple[Condition, int]:
    negated = text[at] == "!"
    start = at + negated
    key = _KEY.match(text, start)
    if key is None:
        raise _invalid(text, start, "expected the name of an attribute", "such as kind=cpu or !usb")
    at = _skip_space(text, key.end())
    operator = next((op for op in _OPERATORS if text.startswith(op, at)), None)
    if operator is None:
        return Condition(key.group(), "lacks" if negated else "has"), key.end()
    if negated:
        raise _invalid(text, start - 1, "'!' stands before a bare name", f"write {key.group()}!=value for 'differs'")
    value_at = _skip_space(text, at + len(operator))
    value, end = _value(text, value_at, operator)
    canonical = _CANONICAL.get(operator, operator)
    if canonical in _ORDERINGS and _number(value) is None and _version(value) is None:
        raise _invalid(
            text, value_at, f"{operator} needs a quantity, not {value!r}", "such as memory>=2GiB or cores>=4"
        )
    return Condition(key.group(), canonical, value), end


def _value(text: str, at: int, operator: str) -> tuple[str, int]:
    if quoted := _QUOTED.match(text, at):
        return re.sub(r"\\(.)", r"\1", quoted.group(1)), quoted.end()
    if bare := _BARE.match(text, at):
        return bare.group(), bare.end()
    if text[at : at + 1] == '"':
        raise _invalid(text, at, "the quoted value has no end", 'end it with "')
    if operator == "=" and text[at : at + 1] in (">", "<"):
        raise _invalid(text, at, "expected a value", f"is {text[at]}= meant?")
    raise _invalid(text, at, f"expected a value after {operator}", 'the empty value is written ""')


def _skip_space(text: str, at: int) -> int:
    match = _SPACE.match(text, at)
    return match.end() if match else at


def _invalid(text: str, at: int, problem: str, hint: str) -> InvalidSelector:
    shown = re.sub(r"\s", " ", text)  # one line, so that the mark below it stands where it should
    return InvalidSelector(
        f"selector, column {at + 1}: {problem}\n    {shown}\n    {' ' * at}^",
        hint=hint,
        details={"column": str(at + 1), "selector": text},
    )


def _compare(left: str, right: str) -> int | None:
    """-1, 0 or 1 where both are quantities or both are versions, else None."""
    numbers = _number(left), _number(right)
    if numbers[0] is not None and numbers[1] is not None:
        return (numbers[0] > numbers[1]) - (numbers[0] < numbers[1])
    versions = _version(left), _version(right)
    if versions[0] is not None and versions[1] is not None:
        return (versions[0] > versions[1]) - (versions[0] < versions[1])
    return None


def _number(text: str) -> Fraction | None:
    """A quantity, exactly: ``"1.5GiB"`` → 1610612736."""
    match = _NUMBER.fullmatch(text)
    if match is None:
        return None
    suffix = (match.group(2) or "").upper()
    exponent = "KMGT".index(suffix[0]) + 1 if suffix else 0
    return Fraction(match.group(1)) * Fraction(1024 if suffix.endswith("I") else 1000) ** exponent


def _version(text: str) -> tuple[int, ...] | None:
    """``"535.104.05"`` → (535, 104, 5); a plain number such as ``13`` or ``13.1`` is a version too, of fewer parts."""
    return tuple(map(int, text.split("."))) if _VERSION.fullmatch(text) else None
