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
from typing import Any

import psutil

from benchmarks.comparison import MBIT, RTT_MS, SECTIONS, Effort, Sides
from benchmarks.cpu import comparison as code
from benchmarks.cpu.tables import Table
from benchmarks.cpu.turns import Effort as CodeEffort
from benchmarks.crossfarm_side import crossfarm_side
from benchmarks.devices import comparison as devices
from benchmarks.floors import grpc_floor
from benchmarks.models.comparison import models
from benchmarks.processes import REPOSITORY, slow_link
from benchmarks.report import Row, as_json, markdown, update_document
from benchmarks.tvm import tvm_peer
from clients.sdk.farm import connect
from crossfarm.target import Target

PROGRAM = Path(__file__).parent / "programs" / "small.py"
DOCUMENT = REPOSITORY / "docs" / "performance.md"
#: The sections on the CPU, whole models last.
CODE = {**code.SECTIONS, "models": models}
#: How long other work is looked for before the run, and how much of it is told of.
_LOOK_SECONDS, _QUIET_PERCENT = 2.0, 10.0
#: Rounds of a ``--quick`` run.
_QUICK_ROUNDS = 2


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description="crossfarm beside its peers, in one run")
    known = [*SECTIONS, *CODE, *devices.SECTIONS]
    parser.add_argument("--only", choices=known, action="append", help="a part of the tables; repeatable")
    parser.add_argument("--quick", action="store_true", help="fewer sizes and rounds: a look, no figures to publish")
    parser.add_argument("--rounds", type=int, default=Effort.rounds, help="turns of each side at the farm (default: 7)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write every sample there")
    parser.add_argument("--update-docs", action="store_true", help="put the tables into docs/performance.md")
    options = parser.parse_args()
    # The processes of a run that is told to stop are ended as those of one that fails.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    wanted = options.only or known
    texts: dict[str, str] = {}
    samples: dict[str, Any] = {}
    busy = psutil.cpu_percent(interval=_LOOK_SECONDS)
    if busy > _QUIET_PERCENT:
        # Libraries whose threads spin suffer more from it than those whose threads sleep: not even ratios would hold.
        print(f"the processors are {busy:.0f} % busy with other work: figures will be wrong", file=sys.stderr)
        if options.update_docs:
            print("such figures are not put into the documents: run again on a quiet machine", file=sys.stderr)
            return 1
    with tempfile.TemporaryDirectory(prefix="crossfarm-bench-") as folder:
        # A cache of its own: the user's is neither filled with this run's modules nor makes a cold build a warm one.
        os.environ["CROSSFARM_CACHE"] = str(Path(folder, "cache"))
        os.environ["POCL_CACHE_DIR"] = str(Path(folder))
        if farm_sections := [name for name in SECTIONS if name in wanted]:
            effort = Effort(rounds=_QUICK_ROUNDS if options.quick else options.rounds)
            texts[""], samples["farm"] = _farm(farm_sections, effort, Path(folder), busy)
            print(texts[""])
        if code_sections := [name for name in CODE if name in wanted]:
            texts["code"], samples["code"] = _code(code_sections, options.quick, Path(folder), busy)
            print(texts["code"])
        if device_sections := [name for name in devices.SECTIONS if name in wanted]:
            texts["devices"], samples["devices"] = _devices(device_sections, options.quick, Path(folder), busy)
            print(texts["devices"])
    if options.json:
        options.json.write_text(json.dumps(samples, indent=1) + "\n")
    if options.update_docs:
        for part, text in texts.items():
            update_document(DOCUMENT, text, part)
    return 0


def _farm(sections: list[str], effort: Effort, scratch: Path, busy: float) -> tuple[str, dict[str, Any]]:
    """The work of the farm itself beside TVM's RPC and bare gRPC: the table, and every sample."""
    rows: list[Row] = []
    with ExitStack() as stack:
        log = scratch / "log"
        sides = Sides(
            stack.enter_context(crossfarm_side(PROGRAM, log=log, state=scratch)),
            stack.enter_context(tvm_peer(PROGRAM, log=log)),
            stack.enter_context(grpc_floor(log=log)),
        )
        far_ports = [*sides.ours.far_ports, *sides.peer.ports]
        stack.enter_context(slow_link(far_ports, rtt_ms=RTT_MS, mbit=MBIT, python=sys.executable, log=log))
        for name in sections:
            print(f"measuring {name} …", file=sys.stderr)
            rows += SECTIONS[name](sides, effort)
        conditions = (
            f"{_machine(busy)}, loopback, Python {platform.python_version()}, grpcio {version('grpcio')}, Apache TVM "
            f"{sides.peer.version}; medians, sides in turns."
        )
    return f"{conditions}\n\n{markdown(rows)}", {"conditions": conditions, "rows": as_json(rows)}


def _code(sections: list[str], quick: bool, scratch: Path, busy: float) -> tuple[str, dict[str, Any]]:
    """The code that is generated, beside libraries and TVM: the tables, and every sample."""
    tables: list[Table] = []
    with (
        connect("embedded") as farm,
        code.code_bench(farm, log=scratch / "code.log", effort=CodeEffort.of(quick=quick)) as bench,
    ):
        for name in sections:
            print(f"measuring {name} …", file=sys.stderr)
            tables += CODE[name](bench)
        used = ", ".join([*bench.versions, f"{bench.threads} threads each"])
        conditions = (
            f"{_machine(busy)} of {_core(bench.device.target)}; {used}; medians, sides in turns, ± half the distance "
            "between the quartiles."
        )
    text = "\n".join([f"{conditions}\n", *(table.markdown() for table in tables)])
    return text, {"conditions": conditions, "tables": {table.title: table.data for table in tables}}


def _devices(sections: list[str], quick: bool, scratch: Path, busy: float) -> tuple[str, dict[str, Any]]:
    """Devices that run kernels: launches beside bare ones, kernels beside those written by hand."""
    tables: list[Table] = []
    log, effort, threads = scratch / "devices.log", CodeEffort.of(quick=quick), os.cpu_count() or 1
    offered = ",".join(["cpu", *devices.KINDS])  # no agent starts without a device, and a CPU is always there
    with (
        connect("embedded", embedded_devices=offered) as farm,
        devices.device_bench(farm, scratch=scratch, log=log, effort=effort, threads=threads) as bench,
    ):
        for name in sections:
            print(f"measuring {name} …", file=sys.stderr)
            tables += devices.SECTIONS[name](bench)
        used = "; ".join([_machine(busy), *bench.versions])
        conditions = f"{used}; medians, sides in turns, ± half the distance between the quartiles."
    text = "\n".join([f"{conditions}\n", *(table.markdown() for table in tables)])
    return text, {"conditions": conditions, "tables": {table.title: table.data for table in tables}}


def _core(target: Target) -> str:
    at = target.attributes
    return f"{at.get('tune', at['cpu'])}, {at['vector_bits']}-bit vectors"


def _machine(busy: float) -> str:
    """What it is and how much of it others had before anything was started here."""
    cores = f"{os.cpu_count()} cores ({platform.machine()}, {busy:.0f} % busy before)"
    return f"Measured {date.today():%Y-%m} on {cores}"


if __name__ == "__main__":
    sys.exit(main())
