"""Benchmarks: samples of a call's time, taken on the device, with what the system tells of its state.

The method is TVM's ``time_evaluator``: a sample is the mean of ``number`` calls made back to back, and ``number`` grows
until a sample lasts ``min_repeat_ms``, so that the clock's resolution and the loop's own cost vanish in it.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import psutil

from crossfarm.errors import ArgumentError
from crossfarm.wire.v1.session_pb2 import Reply, RequestFrame
from device_agent.drivers.base import BoundCall
from device_agent.worker.limits import Guard

MAX_SAMPLES = 100_000
MAX_NUMBER = 1 << 30
MAX_FLUSH_BYTES = 1 << 30
_CPUFREQ = Path("/sys/devices/system/cpu/cpu0/cpufreq")
_THERMAL = Path("/sys/class/thermal")


@dataclass(frozen=True)
class Plan:
    """What to measure; times in seconds."""

    warmup: int
    repeat: int
    number: int
    min_repeat: float
    cooldown: float
    flush_bytes: int

    @classmethod
    def of(cls, asked: RequestFrame.Benchmark) -> Plan:
        """Raises ArgumentError for numbers that make no sense."""
        if not 1 <= asked.repeat <= MAX_SAMPLES or asked.number > MAX_NUMBER or asked.warmup > MAX_NUMBER:
            raise ArgumentError(f"a benchmark takes 1 to {MAX_SAMPLES} samples of at most {MAX_NUMBER} calls")
        if not (0 <= asked.min_repeat_ms < 1e7 and 0 <= asked.cooldown_ms < 1e7):
            raise ArgumentError("min_repeat_ms and cooldown_ms must lie between 0 and 10,000,000")
        if asked.flush_bytes > MAX_FLUSH_BYTES:
            raise ArgumentError(f"flush_bytes must be at most {MAX_FLUSH_BYTES}")
        return cls(
            warmup=asked.warmup,
            repeat=asked.repeat,
            number=asked.number or 1,
            min_repeat=asked.min_repeat_ms / 1000,
            cooldown=asked.cooldown_ms / 1000,
            flush_bytes=asked.flush_bytes,
        )


def measure(
    call: BoundCall, asked: RequestFrame.Benchmark, guard: Guard, synchronize: Callable[[], None]
) -> Reply.Measured:
    """Measures the call as asked.

    Raises:
        ArgumentError: numbers that make no sense.
        ProgramError: the program failed in one of its runs.
    """
    plan = Plan.of(asked)
    flush = np.zeros(plan.flush_bytes, np.uint8)
    before = environment()

    def run(number: int) -> float:
        """Seconds that ``number`` calls took."""
        return guard.run(lambda: timed(call, number, synchronize), number)

    if plan.warmup:
        run(plan.warmup)
    number = _enough(run, plan) if plan.min_repeat else plan.number
    samples = []
    for _ in range(plan.repeat):
        if plan.cooldown:
            time.sleep(plan.cooldown)
        flush += 1  # touches every line, so that the caches hold nothing of the program's
        samples.append(run(number) / number)
    return Reply.Measured(samples=samples, number=number, environment=facts_of(call, before))


def timed(call: BoundCall, number: int, synchronize: Callable[[], None]) -> float:
    """Seconds of ``number`` calls, one after the other, by this process' clock."""
    start = time.perf_counter()
    call.repeat(number)
    synchronize()
    return time.perf_counter() - start


def facts_of(call: BoundCall, before: Mapping[str, str]) -> dict[str, str]:
    """What is told of a measurement that ends now.

    Args:
        before: the ``environment`` when it began.
    """
    resolution = repr(time.get_clock_info("perf_counter").resolution)
    facts = {"loop": call.loop, "threads": str(call.threads), "clock_resolution_s": resolution}
    facts |= {f"{key}_before": value for key, value in before.items()}
    return facts | {f"{key}_after": value for key, value in environment().items()}


def _enough(run: Callable[[int], float], plan: Plan) -> int:
    """Calls that a sample needs to last ``plan.min_repeat`` seconds, found by running more and more of them."""
    number = plan.number
    while (seconds := run(number)) < plan.min_repeat and number < MAX_NUMBER:
        # at least the golden ratio further, at most tenfold: a first run that a cold cache slowed must not decide
        wanted = number * plan.min_repeat / seconds if seconds > 0 else number * 10.0
        number = min(MAX_NUMBER, int(max(number * 1.618 + 1, min(wanted * 1.05, number * 10.0))))
    return number


def environment() -> Mapping[str, str]:
    """What the system tells of clock, temperature and load; nothing where it tells nothing."""
    found = {}
    with contextlib.suppress(OSError, ValueError):
        found["clock_mhz"] = str(int((_CPUFREQ / "scaling_cur_freq").read_text()) // 1000)
    if "clock_mhz" not in found and (frequency := _frequency()):
        found["clock_mhz"] = f"{frequency:.0f}"
    with contextlib.suppress(OSError):
        found["governor"] = (_CPUFREQ / "scaling_governor").read_text().strip()
    temperatures = []
    for zone in sorted(_THERMAL.glob("thermal_zone*/temp")):
        with contextlib.suppress(OSError, ValueError):
            temperatures.append(int(zone.read_text()) / 1000)
    if temperatures:
        found["temperature_c"] = f"{max(temperatures):.1f}"
    with contextlib.suppress(OSError):
        found["load_1min"] = f"{psutil.getloadavg()[0]:.2f}"
    return found


def _frequency() -> float | None:
    with contextlib.suppress(OSError, NotImplementedError, AttributeError):
        frequency = psutil.cpu_freq()
        return frequency.current if frequency is not None else None
    return None
