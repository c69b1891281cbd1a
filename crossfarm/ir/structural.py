"""Structural equality: two programs that differ only in the names and identities of variables and buffers are equal.

What counts: the kind of every node and every field of it, including dtypes, constants, annotations, attributes, block
names, scopes, thread tags, function names and their privacy. What does not: names of variables and buffers, the
module's name, the order of functions in a module and of keys in annotations, and in graph functions where a node came
from. Constant tensors are equal by digest. Attributes of an operator that were left out are its defaults.

Variables and buffers are numbered where they are first met, in one fixed order; so bound ones are equal by binding
position, free ones when one consistent one-to-one mapping exists. A NaN constant equals a NaN constant, and -0.0
differs from 0.0. Equality, hash and difference all read the same stream of tokens, which makes them agree by
construction; nothing here recurses.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterator, Mapping
from itertools import zip_longest
from typing import Any

from crossfarm.errors import InvalidModule
from crossfarm.ir.function import PrimFunc
from crossfarm.ir.graph import operators
from crossfarm.ir.graph.constant import ConstantData
from crossfarm.ir.graph.expr import Function, OperatorCall
from crossfarm.ir.module import IRModule
from crossfarm.ir.schema import BY_CLASS

#: Fields that are for people only: names, and where something came from.
_UNSEEN = {
    ("Var", "name"),
    ("Buffer", "name"),
    ("GraphVar", "name"),
    ("Constant", "note"),
    ("OperatorCall", "origin"),
    ("CallTIR", "origin"),
}
#: A path is a linked list of labels, last first: cheap to extend, spelled out only for a difference.
_Path = tuple[Any, str] | None
_Token = tuple[Any, ...]


def structural_equal(a: Any, b: Any) -> bool:
    """True when ``a`` and ``b`` (modules, functions or nodes) are the same program up to names."""
    return a is b or _first_difference(a, b) is None


def structural_hash(x: Any) -> int:
    """A 64-bit hash equal for structurally equal programs, the same in every process. Never an identity."""
    digest = hashlib.blake2b(digest_size=8)
    for _, token in _tokens(x):
        digest.update(repr(token).encode("utf-8", "backslashreplace"))
    return int.from_bytes(digest.digest(), "little")


def explain_difference(a: Any, b: Any) -> str | None:
    """Where ``a`` and ``b`` first differ and how, as ``main.body.block.body.value.a: int32 5 here, int32 6 there``.

    None when they are equal.
    """
    found = _first_difference(a, b)
    if found is None:
        return None
    path, here, there = found
    return f"{_spelled(path) or 'at the top'}: {_described(here)} here, {_described(there)} there"


def _first_difference(a: Any, b: Any) -> tuple[_Path, _Token, _Token] | None:
    end = (None, ("nothing",))
    for (path, here), (_, there) in zip_longest(_tokens(a), _tokens(b), fillvalue=end):
        if here != there:
            return path, here, there
    return None


def _tokens(root: Any) -> Iterator[tuple[_Path, _Token]]:
    """The program as a flat stream, in pre-order; two programs are equal when their streams are."""
    numbers: dict[int, int] = {}  # id of a Var or Buffer → order of first meeting; root keeps them alive
    stack: list[tuple[Any, _Path]] = [(root, None)]
    while stack:
        item, path = stack.pop()
        spec = BY_CLASS.get(type(item))
        if spec is not None:
            if spec.shared:
                if id(item) in numbers:
                    yield path, (spec.wire, numbers[id(item)])
                    continue
                numbers[id(item)] = len(numbers)
            head: list[Any] = [spec.wire]
            parts: list[tuple[Any, _Path]] = []
            for f in spec.fields:
                if (type(item).__name__, f.name) in _UNSEEN:
                    continue
                value = getattr(item, f.name)
                if f.kind == "annotations" and isinstance(item, OperatorCall):
                    value = _complete(item)
                if f.kind in ("text", "dtype", "choice", "integer", "count", "flag"):
                    head.append(value)
                elif f.kind == "constant":
                    head.extend(_content(value))
                elif f.kind == "float":
                    head.append(_exact(value))
                elif f.kind == "nodes":
                    head.append(len(value))
                    parts.extend((child, (path, f"{f.name}[{i}]")) for i, child in enumerate(value))
                else:
                    parts.append((value, (path, f.name)))
            yield path, tuple(head)
        else:
            token, parts = _plain(item, path)
            yield path, token
        stack.extend(reversed(parts))


def _plain(item: Any, path: _Path) -> tuple[_Token, list[tuple[Any, _Path]]]:
    """Token and parts of what is not a node: modules, functions, and the values of attributes."""
    if isinstance(item, IRModule):
        names = sorted(item.functions)
        return ("module", *names), [
            (item.attrs, (path, "attrs")),
            *((item.functions[name], (path, name)) for name in names),
        ]
    if isinstance(item, PrimFunc):
        return ("function", len(item.params), item.private), [
            *((param, (path, f"params[{i}]")) for i, param in enumerate(item.params)),
            (item.attrs, (path, "attrs")),
            (item.body, (path, "body")),
        ]
    if isinstance(item, Function):
        return ("graph function", len(item.params), item.private, item.pure), [
            *((param, (path, f"params[{i}]")) for i, param in enumerate(item.params)),
            (item.attrs, (path, "attrs")),
            (item.body, (path, "body")),
            (item.result, (path, "result")),
        ]
    if isinstance(item, ConstantData):
        return ("constant", *_content(item)), []
    if isinstance(item, Mapping):
        keys = sorted(item)
        return ("mapping", *keys), [(item[key], (path, f"[{key!r}]")) for key in keys]
    if isinstance(item, tuple | list):
        return ("tuple", len(item)), [(part, (path, f"[{i}]")) for i, part in enumerate(item)]
    if isinstance(item, float):
        return ("float", _exact(item)), []
    if item is None or isinstance(item, bool | int | str):
        return (type(item).__name__, item), []
    raise TypeError(f"{type(item).__name__} has no structure to compare")


def _content(data: ConstantData) -> tuple[str, tuple[int, ...], str]:
    return data.dtype, tuple(data.shape), data.digest


def _complete(call: OperatorCall) -> Mapping[str, Any]:
    """An operator's attributes with its defaults; as they are where they do not fit it, which the verifier tells."""
    try:
        return operators.get(call.op).complete(call.attrs)
    except InvalidModule:
        return call.attrs


def _exact(value: float) -> str:
    """A float as its exact text, NaNs alike: ``==`` would take -0.0 for 0.0 and NaN for different from itself."""
    return "nan" if math.isnan(value) else repr(float(value))


def _spelled(path: _Path) -> str:
    labels: list[str] = []
    while path is not None:
        path, label = path
        labels.append(label)
    text = ".".join(reversed(labels))
    return text.replace(".[", "[")


def _described(token: _Token) -> str:
    kind, *rest = token
    if kind in ("var", "buffer") and len(rest) == 1 and isinstance(rest[0], int):
        return f"{kind} number {rest[0]}"
    return " ".join([str(kind), *(repr(r) if isinstance(r, str) and not r else str(r) for r in rest)])
