"""The Python client of a farm.

::

    import crossfarm as cf

    with cf.connect() as farm:
        artifact = farm.build(cf.load("matmul.py"), target="llvm")
        with farm.acquire("kind=cpu") as device:
            main = device.load(artifact)["main"]
            c = main(a, b)                                  # numpy in, numpy out
            stats = main.benchmark(a, b, repeat=20)         # seconds

| name | is |
| --- | --- |
| ``connect`` | opens a farm: by address, as configured, or a private one; see ``clients.sdk.config`` |
| ``Farm`` | ``build``, ``acquire``, ``devices``, ``targets``, ``capabilities``, ``put``, ``compiler``, ``close`` |
| ``Device`` | a leased device: ``load``, ``tensor``, ``empty``, ``logs``, ``target``, ``attributes``, ``close`` |
| ``Loaded`` | an artifact on a device; ``loaded["main"]`` is a ``LoadedFunction`` |
| ``LoadedFunction`` | callable; ``submit`` for pipelined calls, ``benchmark`` and ``profile`` to measure |
| ``Tensor`` | an array that stays on the device; ``numpy()`` fetches it |
| ``Future`` | the result of a submitted call, ``result()``; its error comes with it |
| ``BenchmarkResult`` | every sample of a measurement, and ``median``, ``p95``, ``mean``, ``std`` |
| ``Profile`` | the steps of a function: seconds, operations and bytes of each, and what of a model it is |
| ``Lease`` | the right to a device, kept alive by a thread; what ``acquire`` holds for you |
| ``Explanation`` | what the compiler made of a program, from an artifact built with ``keep_sources`` |
| ``Compiler`` | the compiler service for what ``Farm.build`` leaves out: ``BuildResult``, ``fetch``, ``store`` |
| ``DeviceInfo``, ``TargetInfo`` | a row of ``Farm.devices`` and of ``Farm.targets`` |
| ``BuildProgress``, ``QueuePosition`` | what ``on_progress`` and ``on_queued`` are told |
| ``Security`` | credentials beyond loopback: TLS certificates, or ``insecure`` |

Everything that holds something is a context manager and has ``close`` (a lease: ``release``); nothing waits for the
garbage collector. Every error derives from ``crossfarm.Error``, drawn in ``crossfarm.errors``.
"""

from clients.sdk.benchmark import BenchmarkResult
from clients.sdk.compiler import BuildProgress, BuildResult, Compiler, TargetInfo
from clients.sdk.device import Device
from clients.sdk.explanation import Explanation
from clients.sdk.farm import DeviceInfo, Farm, connect
from clients.sdk.future import Future
from clients.sdk.lease import Lease, QueuePosition
from clients.sdk.loaded import Loaded, LoadedFunction
from clients.sdk.profile import Profile
from clients.sdk.tensor import Tensor
from crossfarm.wire.channels import Security

__all__ = [
    "BenchmarkResult",
    "BuildProgress",
    "BuildResult",
    "Compiler",
    "Device",
    "DeviceInfo",
    "Explanation",
    "Farm",
    "Future",
    "Lease",
    "Loaded",
    "LoadedFunction",
    "Profile",
    "QueuePosition",
    "Security",
    "TargetInfo",
    "Tensor",
    "connect",
]
