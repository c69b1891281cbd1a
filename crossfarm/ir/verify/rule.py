"""Rules: a name, the nodes it is about, a check that says what is wrong, and a hint."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NoReturn

from crossfarm.errors import InvalidModule, VerifyError

#: Printed nodes in messages are cut to this.
_MAX_SHOWN = 300

Check = Callable[[Any, Any], "str | None"]


@dataclass(frozen=True)
class Rule:
    """``check(node, scope)`` returns what is wrong in words, or None; its docstring is the rule."""

    name: str
    about: tuple[type, ...]
    hint: str
    check: Check


#: Every rule by name, in the order in which they are tried.
RULES: dict[str, Rule] = {}
_BY_NODE: dict[type, list[Rule]] = {}


def rule(name: str, *about: type, hint: str = "") -> Callable[[Check], Check]:
    """Registers the decorated function as the rule ``name`` about nodes of the classes ``about``."""

    def register(check: Check) -> Check:
        if name in RULES:
            raise ValueError(f"there are two rules named {name!r}")
        RULES[name] = Rule(name, about, hint, check)
        for cls in about:
            _BY_NODE.setdefault(cls, []).append(RULES[name])
        return check

    return register


def apply_rules(node: Any, scope: Any) -> None:
    """Raises VerifyError for the first rule about ``node`` that it breaks."""
    for one in _BY_NODE.get(type(node), ()):
        problem = one.check(node, scope)
        if problem is not None:
            fail(one, problem, scope.function, node)


def fail(broken: Rule, problem: str, function: str, node: Any = None) -> NoReturn:
    """Raises the VerifyError for a broken rule; ``node`` is printed where it is given."""
    shown = f"\n  in: {_printed(node)}" if node is not None else ""
    where = f"function {function!r}: " if function else ""
    raise VerifyError(
        f"{where}{problem} (rule {broken.name}){shown}",
        hint=broken.hint,
        details={"function": function, "rule": broken.name},
    )


def _printed(node: Any) -> str:
    from crossfarm.ir.printer import print_node  # the printer imports the IR; messages alone need it

    try:
        text = print_node(node).strip()
    except RecursionError:  # MAX_DEPTH bounds nesting, not the stack the caller has left
        return f"{type(node).__name__}, too deep to print here"
    except InvalidModule:  # what has no printed form can be wrong too
        return type(node).__name__
    text = text if len(text) <= _MAX_SHOWN else text[: _MAX_SHOWN - 1] + "…"
    return text.replace("\n", "\n      ")
