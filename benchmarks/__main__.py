"""``python -m benchmarks``: measures every side and prints the comparison."""

from __future__ import annotations

import argparse
import json
import os
import platform
import signal
import sys
import tempfile
from contextlib import ExitStack
from datetime import date
from importlib.metadata import version
from pathlib import Path

from benchmarks.comparison import MBIT, RTT_MS, SECTIONS, Effort, Sides
from benchmarks.crossfarm_side import crossfarm_side
from benchmarks.floors import grpc_floor
from benchmarks.processes import REPOSITORY, slow_link
from benchmarks.report import Row, as_json, markdown, update_document
from benchmarks.tvm import tvm_peer

PROGRAM = Path(__file__).parent / "programs" / "small.py"
DOCUMENT = REPOSITORY / "docs" / "performance.md"


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description="crossfarm beside its peers, in one run")
    parser.add_argument("--only", choices=[*SECTIONS], action="append", help="a part of the table; repeatable")
    parser.add_argument("--rounds", type=int, default=Effort.rounds, help="turns that every side gets (default: 7)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write every sample there")
    parser.add_argument("--update-docs", action="store_true", help="put the table into docs/performance.md")
    options = parser.parse_args()
    # The processes of a run that is told to stop are ended as those of one that fails.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    rows: list[Row] = []
    with ExitStack() as stack:
        scratch = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="crossfarm-bench-")))
        log = scratch / "log"
        # A cache of its own: the user's is neither filled with this run's modules nor makes a cold build a warm one.
        os.environ["CROSSFARM_CACHE"] = str(scratch / "cache")
        sides = Sides(
            stack.enter_context(crossfarm_side(PROGRAM, log=log, state=scratch)),
            stack.enter_context(tvm_peer(PROGRAM, log=log)),
            stack.enter_context(grpc_floor(log=log)),
        )
        far_ports = [*sides.ours.far_ports, *sides.peer.ports]
        stack.enter_context(slow_link(far_ports, rtt_ms=RTT_MS, mbit=MBIT, python=sys.executable, log=log))
        for name, section in SECTIONS.items():
            if not options.only or name in options.only:
                print(f"measuring {name} …", file=sys.stderr)
                rows += section(sides, Effort(rounds=options.rounds))
        conditions = _conditions(sides.peer.version)
    table = markdown(rows)
    print(f"{conditions}\n\n{table}")
    if options.json:
        options.json.write_text(json.dumps({"conditions": conditions, "rows": as_json(rows)}, indent=1) + "\n")
    if options.update_docs:
        update_document(DOCUMENT, f"{conditions}\n\n{table}")
    return 0


def _conditions(tvm: str) -> str:
    return (
        f"Measured {date.today():%Y-%m} on {os.cpu_count()} cores ({platform.machine()}), loopback, Python "
        f"{platform.python_version()}, grpcio {version('grpcio')}, Apache TVM {tvm}; medians, sides in turns."
    )


if __name__ == "__main__":
    sys.exit(main())
