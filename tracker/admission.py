"""What peers may say: bounds on names, counts and texts, checked before anything reaches the machine.

The machine believes its events and stops the tracker when one cannot be carried out or saved. So what a broken or
hostile peer can send is refused here (names, counts, tokens) or cut to size (texts for people).
"""

from __future__ import annotations

from crossfarm.errors import LimitExceeded, UsageError
from crossfarm.wire.status import MAX_TEXT
from crossfarm.wire.v1 import tracker_pb2 as wire

#: Names end up in the database and in other people's terminals.
MAX_NAME = 200
#: Devices that one agent may register, and leases that it may say it holds or ended.
MAX_DEVICES = 1_000
#: Bytes of one device's description, attributes and target included.
MAX_DEVICE_BYTES = 16 << 10
#: Facts of one error.
MAX_DETAILS = 16
#: Why a device cannot be used: it is shown in tables and in the queue.
MAX_REASON = 500
#: Fencing tokens are counted up from the largest seen, and saved as signed 64-bit integers.
MAX_FENCE = 1 << 62

_KINDS = frozenset(wire.Outcome.Kind.values())


def check_names(*names: str) -> None:
    """Raises LimitExceeded for what is no name; empty ones are left to who needs them."""
    for name in names:
        if len(name) > MAX_NAME or not name.isprintable():
            raise LimitExceeded(f"{name[:40]!r}… is not a name: at most {MAX_NAME} printable characters")


def check_register(register: wire.Register) -> None:
    """Raises LimitExceeded for too much or too many, UsageError for held leases that cannot be."""
    agent = register.agent_id
    check_names(agent, register.instance)
    for what, count in (
        ("devices", len(register.devices)),
        ("held leases", len(register.held)),
        ("ended leases", len(register.ended)),
    ):
        if count > MAX_DEVICES:
            raise LimitExceeded(
                f"agent {agent} registers {count:,} {what}; one agent may have {MAX_DEVICES:,}",
                hint="start several agents, each with a part of them",
            )
    for device in register.devices:
        check_names(device.id)
        if (size := device.ByteSize()) > MAX_DEVICE_BYTES:
            raise LimitExceeded(
                f"the description of device {device.id} has {size:,} bytes; at most {MAX_DEVICE_BYTES:,} are taken",
                hint="give it fewer or shorter attributes",
            )
    seen: set[str] = set()
    for held in register.held:
        check_names(held.lease_id)
        if not held.lease_id or held.lease_id in seen or held.device_id in seen or held.fencing_token > MAX_FENCE:
            raise UsageError(
                f"agent {agent} says it holds lease {held.lease_id!r} on {held.device_id[:MAX_NAME]!r} with token "
                f"{held.fencing_token}: a lease has a name, one device of its own and a token this tracker gave",
                hint="restart the agent: it then holds nothing",
            )
        seen |= {held.lease_id, held.device_id}


def outcome_of(said: wire.Outcome) -> wire.Outcome:
    """A peer's outcome, cut to size; a kind that this release does not know counts as unspecified."""
    outcome = wire.Outcome(kind=said.kind if said.kind in _KINDS else wire.Outcome.KIND_UNSPECIFIED)
    if said.HasField("error"):
        error = said.error
        outcome.error.type = error.type[:MAX_NAME]
        outcome.error.message = error.message[:MAX_TEXT]
        outcome.error.hint = error.hint[:MAX_TEXT]
        outcome.error.retryable = error.retryable
        for key in sorted(error.details)[:MAX_DETAILS]:
            outcome.error.details[key[:MAX_NAME]] = error.details[key][:MAX_TEXT]
    return outcome


def reason_of(said: str) -> str:
    """A text for people, on one line and cut to size."""
    return " ".join(printable(said[: 4 * MAX_REASON]).split())[:MAX_REASON]


def printable(text: str) -> str:
    """``text`` without what would steer the terminal it is shown on."""
    return text if text.isprintable() else "".join(c if c.isprintable() else " " for c in text)
