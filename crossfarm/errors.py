"""Every error a user of crossfarm can meet, one tree.

::

    Error
    ├── UserError                      the program or the request is wrong; the same try fails again   (exit 1)
    │   ├── InvalidModule              an IRModule that is malformed or ill-formed
    │   │   ├── ScriptError            script text outside the subset: file, line, column, construct
    │   │   └── VerifyError            well-formedness: function, node, rule
    │   ├── ScheduleError              a schedule primitive refused: which, why, and the block or loop
    │   │   └── TraceError             a trace that does not fit its module, or cannot be read: names the instruction
    │   ├── InvalidTarget              unknown kind, tag or attribute; conflicting merge
    │   ├── UnsupportedTarget          described, but this server (or this build) cannot build for it
    │   ├── InvalidArtifact            truncated, tampered, from the future, or for another machine
    │   │   └── IncompatibleArtifact   intact, but this device cannot run it; says what is missing
    │   ├── BuildFailed                the compiler refused or crashed on this module
    │   ├── NoSuchFunction             the module or artifact has no function of that name
    │   ├── ArgumentError              number, shape, dtype or kind of arguments
    │   ├── InvalidSelector            a selector that does not parse
    │   ├── NoSuchDevice               no registered device could ever meet the selector; names the nearest miss
    │   ├── NotFound                   an object (artifact, lease, tensor) that is not there
    │   ├── PermissionDenied           missing or wrong credential or lease token
    │   ├── LimitExceeded              a message, tensor, artifact, memory or count above its stated limit
    │   ├── ProgramError               the program itself reported an error (division by zero, failed check)
    │   ├── RemoteCrash                the program killed its worker: signal, abort, out of memory
    │   ├── Mismatch                   outputs differ from what was expected
    │   ├── Cancelled                  the caller cancelled it
    │   └── Timeout                    a limit the user set ran out (call, session, wait for a device)
    ├── UsageError                     the command line or configuration is wrong                       (exit 2)
    └── InfrastructureError            the farm failed, not the program; worth retrying                 (exit 3)
        └── RetryableError
            ├── Unavailable            a service cannot be reached, or went away mid-request
            ├── LeaseLost              the lease ended under the client: expired, kicked, agent gone
            ├── DeviceLost             the device's driver failed or lost the device
            └── ResourceExhausted      the farm is full: disk, workers, queue

Each error carries ``exit_code`` (0 done, 1 user, 2 usage, 3 infrastructure) and ``hint``, the next step in words.
``crossfarm.wire.status`` maps the tree both ways onto gRPC status codes with structured details.
"""

from __future__ import annotations


class Error(Exception):
    """Root of the tree.

    Args:
        message: what was wrong and where.
        hint: what to do next, a full sentence; printed after the message.
        details: machine-readable facts (string to string), carried over the wire.
    """

    exit_code: int = 1
    retryable: bool = False

    def __init__(self, message: str, *, hint: str = "", details: dict[str, str] | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint
        self.details: dict[str, str] = dict(details or {})

    def __str__(self) -> str:
        return f"{self.message}\n  next: {self.hint}" if self.hint else self.message


class UserError(Error):
    """The program or the request is wrong; trying the same again fails again."""


class InvalidModule(UserError):
    """An IRModule that is malformed or ill-formed."""


class ScriptError(InvalidModule):
    """Script text outside the subset.

    Attributes:
        filename, line, column: where (1-based line and column); construct: what was met.
    """

    def __init__(
        self,
        message: str,
        *,
        filename: str = "<script>",
        line: int = 0,
        column: int = 0,
        construct: str = "",
        hint: str = "",
        details: dict[str, str] | None = None,
    ) -> None:
        facts = {"filename": filename, "line": str(line), "column": str(column), "construct": construct}
        super().__init__(message, hint=hint, details=details or facts)
        self.filename = self.details.get("filename", filename)
        self.line = int(self.details.get("line", line))
        self.column = int(self.details.get("column", column))
        self.construct = self.details.get("construct", construct)


class VerifyError(InvalidModule):
    """The module breaks a rule of well-formedness; the message names the function, the node and the rule."""


class ScheduleError(UserError):
    """A schedule primitive that would be illegal; the message prints the block or loop it was asked to change.

    Attributes:
        primitive: its name, as ``compute_at``; reason: why it refused, without the printed node.
    """

    def __init__(
        self,
        message: str,
        *,
        primitive: str = "",
        reason: str = "",
        hint: str = "",
        details: dict[str, str] | None = None,
    ) -> None:
        super().__init__(message, hint=hint, details=details or {"primitive": primitive, "reason": reason})
        self.primitive = self.details.get("primitive", primitive)
        self.reason = self.details.get("reason", reason)


class TraceError(ScheduleError):
    """A schedule trace that cannot be read, or that no longer fits the module; names the instruction."""


class InvalidTarget(UserError):
    """Unknown kind, tag or attribute, or two partial targets that conflict."""


class UnsupportedTarget(UserError):
    """A valid target that this server, or this build, cannot build for."""


class InvalidArtifact(UserError):
    """An artifact that is truncated, tampered with, from the future, or not an artifact."""


class IncompatibleArtifact(InvalidArtifact):
    """An intact artifact that this device cannot run; the message says what is missing."""


class BuildFailed(UserError):
    """The compiler refused this module, crashed on it, or ran out of its time or memory."""


class NoSuchFunction(UserError):
    """The module or artifact has no function of that name; the message lists those it has."""


class ArgumentError(UserError, ValueError):
    """Wrong number, shape, dtype or kind of arguments."""


class InvalidSelector(UserError):
    """A selector that does not parse; the message points at the column."""


class NoSuchDevice(UserError):
    """No registered device could ever meet the selector; the message names the nearest miss."""


class NotFound(UserError):
    """An artifact, lease, tensor or other object that is not there."""


class PermissionDenied(UserError):
    """A missing or wrong credential, or the token of another lease."""


class LimitExceeded(UserError):
    """Something above its stated limit: message, tensor, artifact, memory, count."""


class ProgramError(UserError):
    """The program itself reported an error, such as an integer division by zero; the device is untouched."""


class RemoteCrash(UserError):
    """The program killed its worker (signal, abort, out of memory); the device was checked and went back."""


class Mismatch(UserError):
    """Outputs differ from the expected ones by more than the tolerance."""


class Cancelled(UserError):
    """The caller cancelled it."""


class Timeout(UserError, TimeoutError):
    """A limit that the user set ran out: a call's, a session's, or the wait for a device."""


class UsageError(Error):
    """The command line or the configuration is wrong."""

    exit_code = 2


class InfrastructureError(Error):
    """The farm failed, not the program. Never reported as the program's own failure."""

    exit_code = 3


class RetryableError(InfrastructureError):
    """The farm failed in a way that is worth retrying as it is."""

    retryable = True


class Unavailable(RetryableError):
    """A service cannot be reached, or went away in the middle of a request."""


class LeaseLost(RetryableError):
    """The lease ended under its client: it expired, was kicked, or the device's agent went away."""


class DeviceLost(RetryableError):
    """The device's driver failed, or lost the device; the agent checks it before it is leased again."""


class ResourceExhausted(RetryableError):
    """The farm is full at the moment: disk, workers or queue."""


def all_errors() -> dict[str, type[Error]]:
    """Name → class for the whole tree, the mapping that errors on the wire use."""
    found: dict[str, type[Error]] = {}
    todo: list[type[Error]] = [Error]
    while todo:
        cls = todo.pop()
        found[cls.__name__] = cls
        todo.extend(cls.__subclasses__())
    return found
