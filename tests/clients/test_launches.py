"""An artifact's kernels run without crossfarm: with what ``inspect --sources`` writes, and plain pyopencl."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import textwrap
from pathlib import Path

import numpy as np
import pytest

import crossfarm as cf
from clients.sdk import Farm
from tests.clients.conftest import Crossfarm

#: Reads launch.json and the kernels, and knows nothing else.
LAUNCHER = textwrap.dedent("""
    import json, sys
    import numpy as np
    import pyopencl as cl

    folder, function = sys.argv[1:3]
    document = json.load(open(f"{folder}/launch.json"))
    plan = document["functions"][function]
    queue = cl.CommandQueue(cl.Context([cl.get_platforms()[0].get_devices()[0]]))
    program = cl.Program(queue.context, open(f"{folder}/{document['code']}").read()).build()
    arrays = np.load(f"{folder}/arguments.npz")
    sizes, buffers, outputs = {}, [], {}

    def size(text):
        return text if isinstance(text, int) else eval(text, {"min": min, "max": max}, sizes)

    for parameter in plan["parameters"]:
        if parameter["role"] == "in":
            for name, extent in zip(parameter["shape"], arrays[parameter["name"]].shape):
                if name in plan["symbols"]:
                    sizes[name] = extent
    for parameter in plan["parameters"]:
        if parameter["role"] == "in":
            array = arrays[parameter["name"]]
        else:
            array = outputs[parameter["name"]] = np.zeros([size(e) for e in parameter["shape"]], parameter["dtype"])
        flags = cl.mem_flags.READ_WRITE | cl.mem_flags.COPY_HOST_PTR
        buffers.append(cl.Buffer(queue.context, flags, hostbuf=array))
    workspace = cl.Buffer(queue.context, cl.mem_flags.READ_WRITE, max(size(plan["workspace_bytes"]), 1))
    for launch in plan["launches"]:
        kernel = document["kernels"][launch["kernel"]]
        values = []
        for argument, parameter in zip(launch["arguments"], kernel["parameters"]):
            if "parameter" in argument:
                values.append(buffers[argument["parameter"]])
            elif "workspace" in argument:
                values.append(workspace.get_sub_region(size(argument["workspace"]), size(argument["bytes"])))
            else:
                values.append(np.dtype(parameter["dtype"]).type(size(argument["value"])))
        groups = [size(g) for g in launch["grid"]]
        total = [g * n for g, n in zip(groups, kernel["group"])]
        getattr(program, launch["kernel"])(queue, total, kernel["group"], *values)
    for parameter, buffer in zip(plan["parameters"], buffers):
        if parameter["name"] in outputs:
            cl.enqueue_copy(queue, outputs[parameter["name"]], buffer)
    np.savez(f"{folder}/results.npz", **outputs)
    assert not any(name.split(".")[0] in ("crossfarm", "clients") for name in sys.modules)
""")


@pytest.fixture(scope="module")
def softmax() -> cf.IRModule:
    return cf.load(Path(__file__).resolve().parents[2] / "examples" / "softmax.py")


def test_kernels_run_from_what_inspect_writes(
    farm: Farm, crossfarm: Crossfarm, softmax: cf.IRModule, tmp_path: Path
) -> None:
    farm.build(softmax, target="opencl").save(tmp_path / "softmax.cfa")
    folder = tmp_path / "sources"
    written = crossfarm("inspect", tmp_path / "softmax.cfa", "--sources", folder, farm=farm)
    assert written.returncode == 0, written.stderr
    document = json.loads((folder / "launch.json").read_text())
    (function,) = document["functions"]
    plan = document["functions"][function]
    given = next(p for p in plan["parameters"] if p["role"] == "in")
    shape = [e if isinstance(e, int) else 37 for e in given["shape"]]
    x = np.random.default_rng(0).random(shape, np.float32) * 8
    np.savez(folder / "arguments.npz", **{given["name"]: x})
    environment = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"} | {
        "PYOPENCL_NO_CACHE": "1", "POCL_CACHE_DIR": str(tmp_path)
    }  # fmt: skip
    done = subprocess.run(
        [sys.executable, "-c", LAUNCHER, str(folder), function],
        cwd=folder, env=environment, capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    (result,) = np.load(folder / "results.npz").values()
    e = np.exp(x - x.max(axis=-1, keepdims=True))
    np.testing.assert_allclose(result, e / e.sum(axis=-1, keepdims=True), rtol=1e-5)


def test_inspect_shows_kernels_with_their_launch_dimensions(
    farm: Farm, crossfarm: Crossfarm, softmax: cf.IRModule, tmp_path: Path
) -> None:
    farm.build(softmax, target=["opencl", "llvm"]).save(tmp_path / "softmax.cfa")
    shown = crossfarm("inspect", tmp_path / "softmax.cfa", farm=farm)
    assert shown.returncode == 0, shown.stderr
    assert "kernel" in shown.stdout
    assert "grid" in shown.stdout
    document = json.loads(crossfarm("inspect", tmp_path / "softmax.cfa", "--json", farm=farm).stdout)
    with_kernels, native = document["variants"]
    assert with_kernels["launch"]["kernels"]
    assert "launch" not in native
