"""Runs ONNX's own node tests on the reference interpreter, and writes which pass and which do not, and why.

::

    python tools/onnx_coverage.py                 tests/frontends/onnx/passing.txt, docs/onnx.md, docs/operators.md anew
    python tools/onnx_coverage.py --show Resize   those of an operator that fail, with their errors
"""

from __future__ import annotations

import argparse
import re
import sys
import warnings
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import onnx
from onnx import TensorProto, defs, numpy_helper

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from crossfarm.errors import Error  # noqa: E402
from crossfarm.frontends.onnx import backend  # noqa: E402
from crossfarm.frontends.onnx.registry import CONVERTERS  # noqa: E402
from crossfarm.ir.graph import visit  # noqa: E402
from crossfarm.ir.graph.expr import OperatorCall  # noqa: E402
from crossfarm.ir.module import IRModule  # noqa: E402
from crossfarm.ir.verify import verify  # noqa: E402
from tools import operator_table  # noqa: E402

PASSING = ROOT / "tests" / "frontends" / "onnx" / "passing.txt"
DOCUMENT = ROOT / "docs" / "onnx.md"
#: Between these two lines of the document is what this tool writes.
BEGIN, END = "<!-- tools/onnx_coverage.py writes from here -->", "<!-- to here -->"
_WIDTH = 118


@dataclass(frozen=True)
class Outcome:
    """Of one test: ``problem`` is "" where it passed; ``frozen`` are inputs that had to be constants; ``operators`` are
    those of the module that was built for it."""

    problem: str
    frozen: tuple[str, ...] = ()
    operators: frozenset[str] = frozenset()


@cache
def cases() -> dict[str, Any]:
    """ONNX's node tests by name."""
    from onnx.backend.test.case.node import collect_testcases

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return {case.name: case for case in collect_testcases(None)}


def outcome(case: Any, runner: backend.Runner = backend.interpreted) -> Outcome:
    """Runs one test as ONNX's own runner does, with its tolerances; what was built is verified."""
    from onnx.backend.test.runner import Runner

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            prepared = backend.Prepared(case.model, runner)
            for inputs, expected in case.data_sets:
                found = prepared.run([_array(x) for x in inputs])
                Runner.assert_similar_outputs([_array(x) for x in expected], found, rtol=case.rtol, atol=case.atol)
            if prepared.module is not None:
                verify(prepared.module)
    except Error as error:
        return Outcome(error.message)
    except (AssertionError, TypeError) as error:  # the comparison raises TypeError for what is no list
        return Outcome(f"other results: {' '.join(str(error).split())[:200]}")
    return Outcome("", prepared.frozen, frozenset() if prepared.module is None else _operators_in(prepared.module))


def _operators_in(module: IRModule) -> frozenset[str]:
    found = (e for function in module.graph_functions.values() for e in visit.expressions(function))
    return frozenset(e.op for e in found if isinstance(e, OperatorCall))


def converted(found: Mapping[str, Outcome]) -> dict[str, list[str]]:
    """Each operator of ours with those of ONNX that a converter makes it for, as far as tests show."""
    made: defaultdict[str, set[str]] = defaultdict(set)
    for name, case in cases().items():
        (node, *more) = case.model.graph.node
        bodies = any(a.HasField("g") for a in node.attribute)  # what is in a body is not the node's doing
        if not more and not bodies and (node.domain, node.op_type) in CONVERTERS:
            for operator in found[name].operators:
                made[operator].add(node.op_type)
    return {operator: sorted(names) for operator, names in made.items()}


def outcomes() -> dict[str, Outcome]:
    """Of all tests, by name."""
    return {name: outcome(case) for name, case in sorted(cases().items())}


def passing(found: Mapping[str, Outcome]) -> str:
    """The tests that pass, one a line, each with the inputs that had to be constants."""
    return "".join(f"{' '.join((name, *o.frozen))}\n" for name, o in found.items() if not o.problem)


def report(found: Mapping[str, Outcome]) -> str:
    """What the document says of operators and tests."""
    passed = [o for o in found.values() if not o.problem]
    fed = sum(not o.frozen for o in passed)
    reasons: defaultdict[str, list[str]] = defaultdict(list)
    for name, o in found.items():
        if o.problem:
            reasons[_reason(o.problem)].append(name)
    rows = [f"| {why} | {len(names)} | `{names[0]}` |" for why, names in sorted(reasons.items(), key=_by_count)]
    with_converter, with_function, missing = _operators(found)
    return "\n".join((
        f"{len(with_converter)} operators of opset {defs.onnx_opset_version()} are read:", "",
        _listed(with_converter), "",
        f"{len(with_function)} are read as the functions that ONNX defines them by:", "", _listed(with_function), "",
        f"{len(missing)} are not:", "", _listed(missing), "",
        "## ONNX's node tests", "",
        f"Of the {len(found)} node tests of onnx {onnx.__version__}, **{len(passed)} pass** on the reference",
        f"interpreter, {fed} of them with every input given when the model runs, the others with those inputs given as",
        "values that shapes depend on. Each module that is built for them is verified. Those that do not pass:", "",
        "| why | tests | such as |", "| --- | --- | --- |", *rows,
    ))  # fmt: skip


def _by_count(item: tuple[str, list[str]]) -> tuple[int, str]:
    return -len(item[1]), item[0]


def _operators(found: Mapping[str, Outcome]) -> tuple[list[str], list[str], list[str]]:
    """Those of ONNX's newest opset with a converter, by a function that passes a test, and neither."""
    tested = {case.model.graph.node[0].op_type for name, case in cases().items() if not found[name].problem}
    newest = {s.name for s in defs.get_all_schemas() if s.domain == "" and not s.deprecated}
    with_converter = sorted(name for name in newest if ("", name) in CONVERTERS)
    rest = newest.difference(with_converter)
    with_function = sorted(rest & tested)
    return with_converter, with_function, sorted(rest.difference(with_function))


def _listed(names: Iterable[str]) -> str:
    lines = [""]
    for name in names:
        word = f"{name}, "
        if len(lines[-1]) + len(word) > _WIDTH:
            lines.append("")
        lines[-1] += word
    return "\n".join(line.rstrip() for line in lines).rstrip(",") + "."


def _reason(problem: str) -> str:
    """A problem in the words of the document."""
    if elements := re.search(r"has elements of type (\w+)", problem):
        return f"elements of type {elements[1]}"
    if operators := re.search(r"operators that crossfarm does not have: ([\w.]+)", problem):
        return f"operator {operators[1]}"
    if operators := re.search(r"\((\w+)\): crossfarm does not have this operator", problem):
        return f"operator {operators[1]}"
    if problem.startswith("other results"):
        return "other results than ONNX's"
    said = re.sub(r"^node '[^']*' ", "", problem)
    return re.sub(r"^test_\w+ ", "a model that ", said)


def _array(value: Any) -> Any:
    """Some tests hold their tensors as messages."""
    return numpy_helper.to_array(value) if isinstance(value, TensorProto) else value


def document(text: str, found: Mapping[str, Outcome]) -> str:
    """The document with what this tool writes made anew."""
    before, _, rest = text.partition(BEGIN)
    after = rest.partition(END)[2]
    return f"{before}{BEGIN}\n\n{report(found)}\n\n{END}{after}"


def show(pattern: str) -> None:
    """Prints what fails of the tests whose name or operator matches."""
    counts: Counter[str] = Counter()
    for name, case in cases().items():
        if not re.search(pattern, name) and not any(re.fullmatch(pattern, n.op_type) for n in case.model.graph.node):
            continue
        found = outcome(case)
        counts["failed" if found.problem else "passed with constants" if found.frozen else "passed"] += 1
        if found.problem:
            print(f"{name}: {found.problem}")
    print(", ".join(f"{count} {what}" for what, count in counts.items()))


def main(arguments: Sequence[str]) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--show", default="", metavar="PATTERN", help="print what fails instead of writing files")
    given = parser.parse_args(arguments)
    if given.show:
        show(given.show)
        return
    found = outcomes()
    PASSING.write_text(passing(found))
    DOCUMENT.write_text(document(DOCUMENT.read_text(), found))
    operator_table.DOCUMENT.write_text(operator_table.document(converted(found)))


if __name__ == "__main__":
    main(sys.argv[1:])
