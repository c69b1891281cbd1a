"""Targets of functions: ``T.target(...)`` as crossfarm and as TVM spell it → what ``crossfarm.ir.placement`` reads.

TVM's words for what a target says are translated (``mcpu``, ``mtriple``, ``arch`` of a GPU, …), in its dictionaries and
in its texts with dashes. Left out is what TVM says of every target of a kind (``keys``, ``max_num_threads``,
``thread_warp_size``), what says how to compile, and hosts that are no CPUs of ours (``c``, ``stackvm``).
"""

from __future__ import annotations

import ast
from collections.abc import Mapping
from typing import Any

from crossfarm.errors import InvalidTarget
from crossfarm.frontends.tvmscript.context import FunctionContext
from crossfarm.ir.placement import target_data
from crossfarm.ir.stmt import AttrValue
from crossfarm.target import TAGS, Target
from crossfarm.target.triples import parse_triple

#: TVM's names of attributes → ours.
_NAMES = {
    "mcpu": "cpu",
    "mattr": "features",
    "num-cores": "cores",
    "vector-width": "vector_bits",
    "max_threads_per_block": "max_threads_per_group",
    "max_shared_memory_per_block": "shared_bytes",
    "registers_per_block": "registers_per_group",
    "supports_float16": "fp16",
    "supports_float64": "fp64",
}
_LEFT_OUT = ("keys", "libs", "device", "opt-level", "fast-math", "max_num_threads", "thread_warp_size")
_INTEGERS = ("cores", "vector_bits", "max_threads_per_group", "shared_bytes", "registers_per_group")
#: Hosts that TVM makes C code or an interpreter's code for: kernels do not depend on them.
_FOREIGN_HOSTS = ("c", "stackvm")


def plain_target(ctx: FunctionContext, node: ast.expr, spec: Any, host: Any = None) -> AttrValue:
    """The attribute's value for any spelling of a target, and of its host. Raises ScriptError for what is none."""
    try:
        tree = _translated(spec)
        if host is not None:
            tree = _with_host({**target_data(Target(tree)), "host": host})
        return target_data(Target(tree))
    except InvalidTarget as failure:
        raise ctx.source.error(node, failure.message, construct="T.target", hint=failure.hint) from None


def captured_target(ctx: FunctionContext, node: ast.expr) -> Target | None:
    """The Target that a name stands for outside of the function."""
    found = ctx.captured.get(node.id) if isinstance(node, ast.Name) and not ctx.is_local(node.id) else None
    return found if isinstance(found, Target) else None


def _translated(spec: Any) -> Any:
    """A target's spelling in crossfarm's words. Raises InvalidTarget."""
    if isinstance(spec, str):
        if spec.lstrip()[:1] in ("{", "["):
            raise InvalidTarget("a script holds no JSON text", hint="write the dictionary itself")
        words = spec.split()
        if words[:1] == ["native"]:
            raise InvalidTarget(
                "a script cannot say 'native', which every machine that reads it is", hint="name the CPU, as x86-64-v3"
            )
        return _translated(_dashed(words)) if any(word.startswith("-") for word in words) else spec
    if isinstance(spec, tuple):
        return [_translated(part) for part in spec]
    if not isinstance(spec, Mapping):
        return spec
    tree: dict[str, Any] = {_NAMES.get(str(k), str(k)): v for k, v in spec.items() if k not in _LEFT_OUT}
    if "tag" in tree and "kind" in tree and tree["tag"] not in TAGS:
        del tree["tag"]  # TVM's own: what it stands for is in the other entries
    if isinstance(tree.get("tag"), str) and "kind" not in tree:
        _translated(tree["tag"])
    if isinstance(tree.get("features"), str):
        tree["features"] = [feature for feature in tree["features"].split(",") if feature]
    if isinstance(triple := tree.pop("mtriple", None), str):
        tree["arch"], tree["os"] = parse_triple(triple)
    if tree.get("kind") == "cuda" and isinstance(arch := tree.pop("arch", None), str):
        number = arch.removeprefix("sm_").rstrip("af")
        tree["sm"] = int(number) if number.isdecimal() else arch
    return _with_host(tree)


def _with_host(tree: dict[str, Any]) -> dict[str, Any]:
    host = tree.pop("host", None)
    kind = host.get("kind") if isinstance(host, Mapping) else str(host).split()[:1]
    if host is None or tree.get("kind") == "llvm" or kind in (*_FOREIGN_HOSTS, *([k] for k in _FOREIGN_HOSTS)):
        return tree  # TVM gives CPUs hosts, too
    return {**tree, "host": _translated(host)}


def _dashed(words: list[str]) -> dict[str, Any]:
    """``llvm -mcpu=cortex-a72 -num-cores 4``."""
    tree: dict[str, Any] = {"kind": words[0]}
    todo = words[1:]
    while todo:
        name, equals, value = todo.pop(0).partition("=")
        if not name.startswith("-") or not (equals or todo):
            raise InvalidTarget(f"cannot read {name!r} in target {' '.join(words)!r}", hint="write it as -name=value")
        name, value = name.lstrip("-"), value if equals else todo.pop(0)
        number = value.isdecimal() and len(value) < 20 and _NAMES.get(name, name) in _INTEGERS
        tree[name] = int(value) if number else value
    return tree
