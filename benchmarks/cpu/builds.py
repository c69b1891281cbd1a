"""How long the programs of the corpus take to build when no cache knows them, and on what."""

from __future__ import annotations

import json
import statistics
import sys
import time
from collections import defaultdict
from collections.abc import Iterator

import crossfarm as cf
from benchmarks.cpu.tables import Table, duration
from benchmarks.processes import REPOSITORY
from benchmarks.report import Samples, quantity
from clients.sdk.farm import Farm
from crossfarm.target import Target

CORPUS = REPOSITORY.parent / "shared" / "corpus"
#: What a cold build of any of them may take, in seconds.
GOAL = 0.3
#: Steps of the build that are LLVM's or the linker's; all others are passes of ours.
_TOOLS = ("codegen", "optimize", "emit", "link")
#: How many of the slowest programs the table shows.
_SHOWN = 8


def corpus_builds(farm: Farm, target: Target, *, rounds: int, quick: bool) -> Iterator[Table]:
    """The slowest programs and the median one, each from IRModule to the artifact's bytes at the client."""
    if not CORPUS.exists():
        print(f"  no corpus at {CORPUS}: its builds are not measured", file=sys.stderr)
        return
    cases = [case["name"] for case in json.loads((CORPUS / "index.json").read_text()) if not case["needs_gpu_mapping"]]
    modules = {name: cf.load(str(CORPUS / f"{name}.py")) for name in (cases[::5] if quick else cases)}
    total: dict[str, list[float]] = defaultdict(list)
    parts: dict[str, dict[str, list[float]]] = {name: defaultdict(list) for name in modules}
    for _ in range(rounds):
        for name, module in modules.items():
            began = time.perf_counter()
            built = farm.compiler.build(module, [target], use_cache=False)
            total[name].append(time.perf_counter() - began)
            for part, seconds in _parts(built.steps).items():
                parts[name][part].append(seconds)
            parts[name]["the way there and back"].append(total[name][-1] - sum(built.steps.values()))
    medians = {name: statistics.median(samples) for name, samples in total.items()}
    slowest = sorted(medians, key=medians.__getitem__, reverse=True)
    columns = ("passes", *_TOOLS, "the way there and back")
    rows = [
        (
            name,
            duration(Samples(total[name])),
            *(quantity(statistics.median(parts[name][column]), "s") for column in columns),
        )
        for name in slowest[:_SHOWN]
    ]
    middle = [statistics.median(statistics.median(part[column]) for part in parts.values()) for column in columns]
    half = statistics.median(medians.values())
    rows.append((f"median of {len(medians)}", quantity(half, "s"), *(quantity(value, "s") for value in middle)))
    verdict = "met" if medians[slowest[0]] <= GOAL else "not met"
    yield Table(
        "Cold builds of the corpus, the slowest first",
        ("program", "build", *columns),
        rows,
        (f"Goal: each ≤ {quantity(GOAL, 's')}; {verdict}.",),
        [{"program": name, "seconds": total[name], "parts": dict(parts[name])} for name in slowest],
    )


def _parts(steps: dict[str, float]) -> dict[str, float]:
    """Seconds of our passes together, and of each tool."""
    found = {"passes": sum(seconds for name, seconds in steps.items() if name not in _TOOLS)}
    return found | {name: steps.get(name, 0.0) for name in _TOOLS}
