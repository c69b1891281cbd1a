"""What a benchmark found."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np


@dataclass(frozen=True)
class BenchmarkResult:
    """Times of one call in seconds, measured on the device: waiting and transfers are never in them.

    Attributes:
        samples: in the order taken; each is the mean of ``number`` calls made back to back.
        number: calls in each sample.
        environment: what the device told of itself, as text: clock and temperature before and after, governor, load,
            ``loop``: whether calls were repeated by native code or by the interpreter, and ``threads``: how many
            parallel loops ran on.
    """

    samples: tuple[float, ...]
    number: int = 1
    environment: Mapping[str, str] = field(default_factory=dict)

    @property
    def median(self) -> float:
        return self.percentile(50)

    @property
    def p95(self) -> float:
        return self.percentile(95)

    @property
    def mean(self) -> float:
        return float(np.mean(self.samples))

    @property
    def std(self) -> float:
        """Standard deviation of the sample (n - 1); 0 for a single one."""
        return float(np.std(self.samples, ddof=1)) if len(self.samples) > 1 else 0.0

    @property
    def min(self) -> float:
        return min(self.samples)

    @property
    def max(self) -> float:
        return max(self.samples)

    def percentile(self, percent: float) -> float:
        """The given percentile, between samples by linear interpolation."""
        return float(np.percentile(self.samples, percent))

    def percentiles(self, percents: Sequence[float] = (50, 90, 95, 99)) -> dict[float, float]:
        """Several percentiles at once."""
        return {percent: self.percentile(percent) for percent in percents}

    def __str__(self) -> str:
        return f"median {self.median:.3e} s, p95 {self.p95:.3e} s, {len(self.samples)} samples of {self.number} calls"
