"""``crossfarm demo``: the main job, end to end, for every kind of device that is found and for two architectures.

Three programs (``examples/``) and a model (SqueezeNet, as the onnx package has it) are built for this machine's CPU,
for its other devices (OpenCL, Vulkan, CUDA) and for an aarch64 device, each leased, run, checked and measured: programs
against numpy in float64, the model against the output that its package has beside it. Where no aarch64 board is
attached to the farm, an emulated one is started: a real arm64 Python under user-mode emulation, which
``make arm64-root`` sets up.
"""

from __future__ import annotations

import importlib.util
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import numpy as np
import typer

from clients.cli import files, output
from clients.cli.invocation import Invocation, JsonOption, TrackerOption, VerboseOption, of
from clients.sdk import processes
from crossfarm.errors import Mismatch, NotFound
from crossfarm.target import Target
from crossfarm.wire.channels import is_loopback

if TYPE_CHECKING:
    from clients.sdk.farm import Farm

Array = np.ndarray[Any, np.dtype[Any]]

_CHECKOUT = Path(__file__).resolve().parents[2]
_EXAMPLES = _CHECKOUT / "examples"
_ARM64_TOOL = _CHECKOUT / "tools" / "arm64_root.py"
_ARM64_ROOT = _CHECKOUT / ".roots" / "arm64"

#: An emulated agent imports numpy and gRPC under emulation before it offers its device.
_EMULATED_START_SECONDS = 180.0
_AARCH64 = "kind=cpu,arch=aarch64"


@dataclass(frozen=True)
class Case:
    """A program of the demo.

    Attributes:
        file: its path, under ``examples/`` where it is relative.
        inputs: makes the arguments.
        reference: what it should give, in float64.
        tolerance: largest error allowed, relative to the largest magnitude of the reference.
    """

    file: str
    inputs: Callable[[np.random.Generator], tuple[Array, ...]]
    reference: Callable[..., Array]
    tolerance: float

    @property
    def name(self) -> str:
        return Path(self.file).name


@dataclass(frozen=True)
class Row:
    """What one program did on one device: times in seconds, error relative to the reference's largest magnitude."""

    program: str
    device: str
    arch: str
    build: float
    cached: bool
    lease: float
    error: float
    median: float


def _matmul(a: Array, b: Array) -> Array:
    return a.astype(np.float64) @ b.astype(np.float64)


def _conv2d_bias_relu(data: Array, weight: Array, bias: Array) -> Array:
    padded = np.pad(data.astype(np.float64), ((0, 0), (0, 0), (1, 1), (1, 1)))
    windows = np.lib.stride_tricks.sliding_window_view(padded, (3, 3), axis=(2, 3))
    out: Array = np.einsum("ncyxij,fcij->nfyx", windows, weight.astype(np.float64), optimize=True)
    return np.maximum(out + bias.astype(np.float64)[None, :, None, None], 0)


def _softmax(x: Array) -> Array:
    power = np.exp(x.astype(np.float64) - x.max(axis=1, keepdims=True))
    total: Array = power / power.sum(axis=1, keepdims=True)
    return total


def _normal(*shapes: tuple[int, ...]) -> Callable[[np.random.Generator], tuple[Array, ...]]:
    return lambda random: tuple(random.standard_normal(shape, dtype=np.float32) for shape in shapes)


CASES = (
    Case("matmul.py", _normal((256, 256), (256, 256)), _matmul, 1e-5),
    Case("conv2d_bias_relu.py", _normal((1, 16, 56, 56), (32, 16, 3, 3), (32,)), _conv2d_bias_relu, 1e-5),
    Case("softmax.py", _normal((64, 1000)), _softmax, 1e-5),
)


def model_case() -> Case | None:
    """SqueezeNet from the onnx package's tests; None without that package."""
    if importlib.util.find_spec("onnx") is None:
        return None
    import onnx  # seconds saved where no demo is run

    folder = Path(onnx.__file__).parent / "backend" / "test" / "data" / "light"
    shape = (1, 3, 224, 224)
    rising = np.arange(np.prod(shape), dtype=np.float64).reshape(shape) / np.prod(shape)
    shipped = onnx.TensorProto.FromString((folder / "light_squeezenet_output_0.pb").read_bytes())
    expected = onnx.numpy_helper.to_array(shipped).astype(np.float64)
    model = str(folder / "light_squeezenet.onnx")
    return Case(model, lambda _: (rising.astype(np.float32),), lambda _: expected, 1e-3)


def add_to(app: typer.Typer) -> None:
    app.command("demo")(demo)


def demo(
    ctx: typer.Context,
    require_aarch64: Annotated[
        bool, typer.Option("--require-aarch64", help="Fail where there is no aarch64 device, not even an emulated one.")
    ] = False,
    repeat: Annotated[int, typer.Option(min=1, help="Samples of each measurement.")] = 10,
    json: JsonOption = False,
    tracker: TrackerOption = None,
    verbose: VerboseOption = False,
) -> None:
    """Build, lease, run, check and measure programs and a model on every kind of device here and on an aarch64 CPU."""
    invocation = of(ctx)
    if not _EXAMPLES.is_dir():
        raise NotFound(f"the demo's programs are not at {_EXAMPLES}", hint="run it from a checkout of the repository")
    rows = []
    model = model_case()
    if model is None:
        invocation.output.note("no model is run: pip install 'crossfarm[onnx]' to see one")
    cases = (*CASES, model) if model else CASES
    with invocation.connect() as farm:
        here = f"kind=cpu,arch={Target.detect().attributes['arch']}"
        selectors = [here if farm.devices(here) else "kind=cpu", *_other_kinds(farm)]
        with _aarch64_device(farm, invocation, required=require_aarch64) as there:
            if there is not None:
                selectors.append(there)
            for selector in selectors:
                for case in cases:
                    row = run_case(farm, case, selector, invocation, repeat=repeat)
                    rows.append(row)
    if json:
        invocation.output.document({"runs": [asdict(row) for row in rows]})
        return
    invocation.output.table(
        ["program", "device", "machine", "build", "lease", "largest error", "median time"],
        [
            [
                row.program,
                row.device,
                row.arch,
                "cached" if row.cached else output.seconds(row.build),
                output.seconds(row.lease),
                f"{row.error:.2g}",
                output.seconds(row.median),
            ]
            for row in rows
        ],
    )


def _other_kinds(farm: Farm) -> list[str]:
    """A selector for each kind of device that the farm has besides CPUs, in order of the names."""
    kinds = {d.attributes.get("kind", "") for d in farm.devices() if d.state not in ("offline", "unhealthy")}
    return [f"kind={kind}" for kind in sorted(kinds - {"", "cpu", "null", "reference"})]


def run_case(farm: Farm, case: Case, selector: str, invocation: Invocation, *, repeat: int) -> Row:
    """One program on one device. Raises Mismatch where the numbers are wrong."""
    out = invocation.output
    module = files.load_program(_EXAMPLES / case.file)
    arguments = case.inputs(np.random.default_rng(0))
    with out.progress(f"{case.name}: asking for a device ({selector})") as progress:
        started = time.perf_counter()
        with farm.acquire(selector) as device:
            lease = time.perf_counter() - started
            progress.say(f"{case.name}: building for {device.id}")
            # the cache would hide what the demo is to show
            built = files.build(farm, module, device.target, out, use_cache=False)
            progress.say(f"{case.name}: running on {device.id}")
            function = device.load(built.artifact)["main"]
            actual = function(*arguments)
            stats = function.benchmark(*arguments, warmup=1, repeat=repeat, min_repeat_ms=1)
            name, arch = device.id, device.attributes.get("arch", "")
    expected = case.reference(*arguments)
    error = float(np.abs(actual.astype(np.float64) - expected).max() / np.abs(expected).max())
    if not error <= case.tolerance:
        raise Mismatch(f"{case.name} on {name}: largest error {error:.3g}, allowed {case.tolerance:g}")
    return Row(case.name.removesuffix(".py"), name, arch, built.seconds, built.cached, lease, error, stats.median)


@contextmanager
def _aarch64_device(farm: Farm, invocation: Invocation, *, required: bool) -> Iterator[str | None]:
    """A selector for an aarch64 device: one of the farm's, else an emulated one that runs while the body does.

    None where there is neither; with ``required`` that is NotFound.
    """
    attached = [device for device in farm.devices(_AARCH64) if device.state not in ("offline", "unhealthy")]
    if attached:
        yield _AARCH64
        return
    if not (_ARM64_ROOT.is_dir() and is_loopback(farm.address)):  # a farm of others is not the place for an emulator
        missing = "no aarch64 device is attached, and there is no arm64 root to emulate one with"
        step = "run make arm64-root once, or attach a board: crossfarm agent serve --tracker HOST:PORT"
        if required:
            raise NotFound(missing, hint=step)
        invocation.output.note(f"{missing}: this machine only\n  next: {step}")
        yield None
        return
    with tempfile.TemporaryDirectory(prefix="crossfarm-arm64-") as scratch:
        directory = Path(scratch)
        command = (
            sys.executable, str(_ARM64_TOOL), "agent", "--", "--tracker", farm.address, "--name", "arm64-emulated",
            "--devices", "cpu", "--attr", "emulated=true", "--state", str(directory / "state"),
        )  # fmt: skip
        children = processes.start_all([processes.Program("arm64-agent", command)], directory)
        try:
            with invocation.output.progress("starting an emulated aarch64 agent"):
                processes.wait_until_announced(children, _EMULATED_START_SECONDS)
            yield "id~=arm64-emulated/*"
        finally:
            processes.stop_all(children)
