"""Where a function belongs: its attribute ``target``.

The attribute is plain data, as every attribute: what ``target_data`` makes of a Target, ``{"kind": "opencl"}``. Script
text writes it ``T.target({"kind": "opencl"})``. A function without it belongs everywhere.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from typing import Any, TypeVar

from crossfarm.errors import InvalidModule, InvalidTarget
from crossfarm.ir.function import PrimFunc
from crossfarm.ir.graph.expr import Function
from crossfarm.ir.stmt import AttrValue
from crossfarm.target import Target

#: The attribute's name.
TARGET = "target"

_AnyFunction = TypeVar("_AnyFunction", bound=PrimFunc | Function)


def placed(function: _AnyFunction, target: Target | None) -> _AnyFunction:
    """The function, meant for ``target`` alone (one of its parts, where it is several), or for all with None."""
    attrs = {name: value for name, value in function.attrs.items() if name != TARGET}
    if target is not None:
        attrs[TARGET] = target_data(target)
    return replace(function, attrs=attrs)


def target_of(function: PrimFunc | Function) -> Target | None:
    """What the function is meant for, None where it does not say. Raises InvalidModule for an attribute that is no
    target."""
    if TARGET not in function.attrs:
        return None
    value = function.attrs[TARGET]
    problem = target_problem(value)
    if problem is not None:
        raise InvalidModule(problem, hint="crossfarm.ir.placement.placed gives a function its target")
    assert isinstance(value, Mapping)
    return Target(value)


def target_data(target: Target) -> Mapping[str, AttrValue]:
    """A target as an attribute's value."""
    data: Mapping[str, AttrValue] = _plain(json.loads(target.to_json()))
    return data


def target_problem(value: object) -> str | None:
    """Why an attribute's value is not what ``target_data`` gives, or None."""
    if not isinstance(value, Mapping) or "kind" not in value or not _is_plain(value):
        return f"the attribute {TARGET!r} is no target, but a {type(value).__name__}"
    try:
        target = Target(value)
    except InvalidTarget as failure:
        return f"the attribute {TARGET!r} is no target: {failure.message}"
    if target_data(target) != value:
        return f"the attribute {TARGET!r} is not written as {target_data(target)}"
    return None


def _plain(tree: Any) -> Any:
    """JSON's lists as tuples, which is what attributes have."""
    if isinstance(tree, dict):
        return {key: _plain(value) for key, value in tree.items()}
    return tuple(map(_plain, tree)) if isinstance(tree, list) else tree


def _is_plain(value: object) -> bool:
    """No expressions, whose comparisons are expressions again, and no objects."""
    if isinstance(value, Mapping):
        return all(isinstance(key, str) and _is_plain(item) for key, item in value.items())
    return all(map(_is_plain, value)) if isinstance(value, tuple) else isinstance(value, bool | int | str)
