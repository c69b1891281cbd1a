"""Whether what is meant for one target belongs on another."""

from __future__ import annotations

from crossfarm.errors import InvalidTarget
from crossfarm.target.kinds import DESCRIPTIVE
from crossfarm.target.target import MULTI, Target, merge


def misfit(wanted: Target, target: Target) -> str | None:
    """Why what is meant for ``wanted`` is not for ``target``, in words; None where it is.

    It is where the two merge (``crossfarm.target.merge``: one kind, and nothing that both give differs) without
    instructions or extensions coming or going. What ``target`` leaves open is its default. What describes a device for
    people (``model``, ``driver``, ``memory_bytes``) is not compared. Of a multi-target one part is enough.

    Args:
        wanted: as a function says it; may be partial, or several.
        target: what is built for, not a multi-target.
    """
    if wanted.kind == MULTI:
        reasons = [misfit(part, target) for part in wanted.targets]
        return None if None in reasons else "; ".join(dict.fromkeys(r for r in reasons if r is not None))
    if wanted.kind != target.kind:
        return f"{wanted.kind} is not {target.kind}"
    have = _undescribed(target.resolved())
    try:
        merged = merge(_undescribed(wanted), have)
    except InvalidTarget as conflict:
        return conflict.message.removeprefix("cannot merge targets: ")
    different = sorted(_abilities(merged) ^ _abilities(have))
    return f"one has {', '.join(different)} and the other has not" if different else None


def _undescribed(target: Target) -> Target:
    given = {name: value for name, value in target.given.items() if name not in DESCRIPTIVE}
    return Target({**given, "kind": target.kind}, host=target.host)


def _abilities(target: Target) -> frozenset[str]:
    """What code may use: a CPU's instructions, a device's extensions."""
    if target.kind == "llvm":
        return target.enabled_features()
    return frozenset(text for value in target.attributes.values() if isinstance(value, tuple) for text in value)
