"""What a worker's end means: exit status and circumstances → Outcome, infrastructure and program kept apart."""

from __future__ import annotations

import signal
from dataclasses import dataclass
from pathlib import Path

from crossfarm import errors
from crossfarm.wire import status
from crossfarm.wire.v1.tracker_pb2 import Outcome

#: Signals that a program's own fault raises, in words.
_FAULTS: dict[str, str] = {
    "SIGSEGV": "it accessed memory that is not its own (SIGSEGV)",
    "SIGBUS": "it accessed memory that is not there (SIGBUS)",
    "SIGFPE": "it made an arithmetic fault such as an integer division by zero (SIGFPE)",
    "SIGILL": "it executed an instruction that this CPU does not have (SIGILL)",
    "SIGABRT": "it aborted itself (SIGABRT)",
    "SIGSYS": "it made a forbidden system call (SIGSYS)",
    "SIGTRAP": "it hit a trap (SIGTRAP)",
    "SIGXCPU": "it used up its CPU time (SIGXCPU)",
    "SIGSTKFLT": "its stack overflowed (SIGSTKFLT)",
}

LOG_TAIL_CHARACTERS = 1500


def oom_kills(vmstat: Path = Path("/proc/vmstat")) -> int:
    """Processes that the kernel has killed for lack of memory since boot; 0 where it does not say."""
    try:
        for line in vmstat.read_text().splitlines():
            key, _, value = line.partition(" ")
            if key == "oom_kill":
                return int(value)
    except (OSError, ValueError):
        pass
    return 0


@dataclass(frozen=True)
class WorkerExit:
    """How a worker process ended.

    Attributes:
        returncode: as ``subprocess`` gives it: negative for a signal.
        log: the end of what it wrote to stderr.
        oom_kills: growth of the kernel's count since the worker was bound.
        program_ran: a client's program had been loaded, so a fault may be its own.
    """

    returncode: int
    log: str = ""
    oom_kills: int = 0
    program_ran: bool = True


def outcome_of(kind: Outcome.Kind, error: errors.Error | None = None) -> Outcome:
    """An Outcome message from a kind and an error of the tree."""
    return Outcome(kind=kind, error=status.to_detail(error) if error is not None else None)


def classify(ended: WorkerExit, where: str) -> Outcome:
    """The outcome of a lease whose worker ended by itself, unasked.

    Args:
        where: the device, for the message.
    """
    details = {"returncode": str(ended.returncode), "device": where}
    said = ended.log.strip()[-LOG_TAIL_CHARACTERS:]
    tail = f"\n--- last output of the worker ---\n{said}" if said else ""
    if ended.returncode >= 0:
        return outcome_of(
            Outcome.INFRASTRUCTURE_FAILED,
            errors.LeaseLost(
                f"the worker on {where} exited with status {ended.returncode} although nobody asked it to{tail}",
                hint="try again; if it repeats, look at the agent's log",
                details=details,
            ),
        )
    try:
        name = signal.Signals(-ended.returncode).name
    except ValueError:
        name = f"signal {-ended.returncode}"
    details["signal"] = name
    if name == "SIGKILL" and ended.oom_kills > 0:
        return outcome_of(
            Outcome.PROGRAM_FAILED,
            errors.RemoteCrash(
                f"the program's worker on {where} was killed because the machine ran out of memory{tail}",
                hint="make the program or its inputs smaller, or lease a device with more memory",
                details=details,
            ),
        )
    if name in _FAULTS and ended.program_ran:
        return outcome_of(
            Outcome.PROGRAM_FAILED,
            errors.RemoteCrash(
                f"the program crashed its worker on {where}: {_FAULTS[name]}{tail}",
                hint="check indices, divisors and external calls; run it on a device of kind=reference, which checks "
                "every access",
                details=details,
            ),
        )
    return outcome_of(
        Outcome.INFRASTRUCTURE_FAILED,
        errors.LeaseLost(
            f"the worker on {where} was killed from outside ({name}){tail}",
            hint="try again; the device is back in the pool",
            details=details,
        ),
    )
