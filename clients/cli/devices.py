"""``crossfarm devices`` and ``crossfarm targets``: what is there, and what it can build for."""

from __future__ import annotations

import json as json_module
from typing import Annotated, Any

import typer

from clients.cli import output
from clients.cli.invocation import JsonOption, TrackerOption, VerboseOption, of
from clients.sdk.compiler import TargetInfo
from clients.sdk.farm import DeviceInfo


def add_to(app: typer.Typer) -> None:
    app.command("devices")(devices)
    app.command("targets")(targets)


def devices(
    ctx: typer.Context,
    select: Annotated[
        str, typer.Option("--select", metavar="EXPR", help="Only those that meet it: kind=cpu,memory>=2GiB.")
    ] = "",
    json: JsonOption = False,
    tracker: TrackerOption = None,
    verbose: VerboseOption = False,
) -> None:
    """List the farm's devices: attributes, state and holder."""
    invocation = of(ctx)
    with invocation.connect() as farm:
        found = farm.devices(select)
    if json:
        invocation.output.document({"devices": [_device_document(device) for device in found]})
        return
    if not found:
        invocation.output.note(f"no device meets {select!r}" if select else "the farm has no devices")
        return
    invocation.output.table(["device", "state", "kind", "machine", "target", "held by"], [*map(_device_row, found)])
    free = next((device for device in found if device.state == "free"), found[0])
    invocation.output.note(f"run there:  crossfarm run FILE --select id={free.id}")


def targets(
    ctx: typer.Context,
    json: JsonOption = False,
    tracker: TrackerOption = None,
    verbose: VerboseOption = False,
) -> None:
    """List the targets known by name, and whether the farm's compiler can build for them."""
    invocation = of(ctx)
    with invocation.connect() as farm:
        found = farm.targets()
    if json:
        invocation.output.document({"targets": [_target_document(target) for target in found]})
        return
    rows = [[t.name, t.target.kind, "yes" if t.buildable else f"no: {t.reason}"] for t in found]
    invocation.output.table(["target", "kind", "builds"], rows)
    if buildable := [t for t in found if t.buildable]:
        invocation.output.note(f"build for it:  crossfarm build FILE --target {buildable[0].name} -o OUT.cfa")


def _device_row(device: DeviceInfo) -> list[str]:
    said = device.attributes
    memory = said.get("memory", "")
    machine = [
        said.get("arch", ""),
        said.get("os", ""),
        f"{said['cores']} cores" if "cores" in said else "",
        output.size(int(memory)) if memory.isdigit() else memory,
    ]
    state = f"{device.state}: {device.reason}" if device.reason else device.state
    target = _name(device) if device.target is not None else "-"
    return [device.id, state, device.kind, ", ".join(filter(None, machine)), target, device.holder or "-"]


def _name(device: DeviceInfo) -> str:
    assert device.target is not None
    cpu = device.target.attributes.get("cpu")
    return device.target.tag or (f"{device.target.kind} {cpu}" if cpu else device.target.kind)


def _device_document(device: DeviceInfo) -> dict[str, Any]:
    return {
        "id": device.id,
        "state": device.state,
        "reason": device.reason,
        "since": device.since.isoformat(),
        "holder": device.holder,
        "lease": device.lease_id,
        "attributes": dict(device.attributes),
        "target": json_module.loads(device.target.to_json()) if device.target is not None else None,
    }


def _target_document(target: TargetInfo) -> dict[str, Any]:
    return {
        "name": target.name,
        "buildable": target.buildable,
        "reason": target.reason,
        "target": json_module.loads(target.target.to_json()),
    }
