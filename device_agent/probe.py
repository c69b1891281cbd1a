"""``python -m device_agent.probe DRIVER``: what a driver finds, as JSON, found in a process of its own.

A vendor's driver may crash, hang or leave threads behind when it is first asked; the agent outlives that.
"""

from __future__ import annotations

import json
import logging
import os
import subprocess
import sys

from crossfarm.target import Target
from crossfarm.wire.ending import run_program
from device_agent import drivers
from device_agent.drivers.base import DeviceDescription
from device_agent.spawn import python_command

log = logging.getLogger(__name__)

#: How long a driver may take to say what it has.
PROBE_SECONDS = 60.0


def probe(name: str) -> list[DeviceDescription]:
    """The driver's devices; none, with a warning, where its probing fails. Raises UsageError for an unknown driver."""
    driver = drivers.get(name)
    if not drivers.probes_apart(driver):
        return driver.probe()
    try:
        done = subprocess.run(
            [*python_command(), "-m", "device_agent.probe", name],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=PROBE_SECONDS,
            check=True,
        )
        found = json.loads(done.stdout)
        return [DeviceDescription(entry["attributes"], Target.from_json(entry["target"])) for entry in found]
    except subprocess.TimeoutExpired:
        log.warning("driver %s did not answer within %g s: its devices are left out", name, PROBE_SECONDS)
    except (subprocess.CalledProcessError, OSError, ValueError, KeyError) as failure:
        said = (
            failure.stderr.decode(errors="replace")[-500:] if isinstance(failure, subprocess.CalledProcessError) else ""
        )
        log.warning("driver %s cannot be asked for its devices: %s %s", name, failure, said)
    return []


def main(arguments: list[str] | None = None) -> int:
    """Entry point; the JSON goes to what stdout was, as drivers write to it too."""
    (name,) = sys.argv[1:] if arguments is None else arguments
    answer = os.dup(1)
    os.dup2(2, 1)
    found = [{"attributes": dict(d.attributes), "target": d.target.to_json()} for d in drivers.get(name).probe()]
    with os.fdopen(answer, "w") as out:
        json.dump(found, out)
    return 0


if __name__ == "__main__":
    run_program(main)
