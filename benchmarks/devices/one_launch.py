"""What an artifact says of a function that is one launch, for those who run its kernel without crossfarm's drivers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from benchmarks.peers.serving import Array
from crossfarm.artifact import Artifact, Signature
from crossfarm.artifact.launches import LaunchPlanner, ParameterOf


@dataclass(frozen=True)
class OneLaunch:
    """A launch with everything that it needs.

    Attributes:
        code: kernels, as the artifact has them; name: of the kernel in it.
        group: threads of a group along x, y, z; grid: groups.
        arrays: of the function's parameters.
        order: which of them each of the kernel's buffers is.
    """

    code: bytes
    name: str
    group: tuple[int, int, int]
    grid: tuple[int, int, int]
    arrays: Sequence[Array]
    order: tuple[int, ...]

    @classmethod
    def of(cls, artifact: Artifact, arrays: Sequence[Array]) -> OneLaunch:
        """Of the artifact's only function. Raises ValueError where it is more than one launch, or needs temporaries."""
        (variant,) = artifact.variants
        (entry,) = variant.entry_points
        launches = LaunchPlanner(entry, variant).launches(Signature(entry).bind(list(arrays)))
        if len(launches) != 1:
            raise ValueError(f"{entry.name} is {len(launches)} launches, not one")
        (launch,) = launches
        order = []
        for value in launch.values:
            if not isinstance(value, ParameterOf):
                raise ValueError(f"kernel {launch.kernel.name} takes more than the function's own buffers")
            order.append(value.index)
        x, y, z = launch.kernel.group
        return cls(artifact.code(variant), launch.kernel.name, (x, y, z), launch.grid, arrays, tuple(order))
