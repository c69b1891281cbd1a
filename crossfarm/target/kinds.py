"""Target kinds: one row each with the schema of its attributes. A new kind is a row here and a back end to build it."""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from dataclasses import dataclass

from crossfarm.errors import InvalidTarget
from crossfarm.target import cpu

Value = str | int | bool | tuple[str, ...]

#: Bounds for what comes from outside.
MAX_TEXT = 256
MAX_TEXTS = 256
MAX_NUMBER = 2**62


@dataclass(frozen=True)
class Attribute:
    """One attribute of a kind.

    Attributes:
        type: str, int, bool, or tuple (of strings).
        default: used where a target does not say; None means there is none and the attribute is absent.
        choices: the only values allowed, () for any.
    """

    type: type
    doc: str
    default: Value | None = None
    choices: tuple[str, ...] = ()


@dataclass(frozen=True)
class Kind:
    """One kind of target. ``why_not`` says what is missing when no server can build for it, else it is empty."""

    name: str
    doc: str
    attributes: dict[str, Attribute]
    why_not: str = ""


_COMMON = {
    "model": Attribute(str, "What people call the device; has no effect on code."),
    "memory_bytes": Attribute(int, "Memory of the device in bytes."),
    "driver": Attribute(str, "Driver name and version, for people."),
}
#: Attributes that say which device it is, and change no code.
DESCRIPTIVE = frozenset(_COMMON)

_CPU = {
    "arch": Attribute(str, "Instruction set; without it, the machine's that builds.", choices=cpu.ARCHES),
    "os": Attribute(str, "Operating system.", choices=("linux", "android", "windows", "macos")),
    "cpu": Attribute(str, "LLVM's name of the CPU model; without it, the architecture's baseline."),
    "tune": Attribute(str, "LLVM's name of the model to schedule instructions for; never adds instructions."),
    "features": Attribute(tuple, "LLVM features on top of the model's: +avx2, -aes.", ()),
    "vector_bits": Attribute(int, "Width of the vectors to use; without it, the widest that the features bring."),
    "cores": Attribute(int, "Physical cores."),
    "threads": Attribute(int, "Hardware threads."),
    "l1_bytes": Attribute(int, "Level 1 data cache of one core."),
    "l2_bytes": Attribute(int, "Level 2 cache of one core."),
    "l3_bytes": Attribute(int, "Level 3 cache."),
    "cache_line_bytes": Attribute(int, "Cache line.", 64),
}

_GPU = {
    "max_threads_per_group": Attribute(int, "Threads of one group (block, work group) at most.", 256),
    "shared_bytes": Attribute(int, "Memory that the threads of a group share.", 16384),
    "warp_size": Attribute(int, "Threads that run in lockstep.", 1),
    "compute_units": Attribute(int, "Multiprocessors or shader cores."),
    "device_type": Attribute(str, "What runs a group: a GPU, or one core of a CPU.", "gpu", choices=("gpu", "cpu")),
    "fp16": Attribute(bool, "Half precision arithmetic.", False),
    "fp64": Attribute(bool, "Double precision arithmetic.", False),
}

KINDS: dict[str, Kind] = {
    kind.name: kind
    for kind in (
        Kind("llvm", "A CPU, through LLVM to a native library.", {**_CPU, **_COMMON}),
        Kind(
            "opencl",
            "A GPU through OpenCL C.",
            {
                **_GPU,
                **_COMMON,
                "version": Attribute(str, "OpenCL C version.", "1.2"),
                "extensions": Attribute(tuple, "OpenCL extensions the device has.", ()),
                "image2d_max": Attribute(int, "Largest side of a 2D image; 0 for no images.", 0),
            },
        ),
        Kind(
            "cuda",
            "An NVIDIA GPU through PTX.",
            {
                **_GPU,
                **_COMMON,
                "sm": Attribute(int, "Compute capability, 87 for 8.7.", 53),
                "fp64": Attribute(bool, "Double precision arithmetic.", True),
                "max_threads_per_group": Attribute(int, "Threads of one block at most.", 1024),
                "shared_bytes": Attribute(int, "Shared memory of one block.", 49152),
                "warp_size": Attribute(int, "Threads of a warp.", 32),
                "registers_per_group": Attribute(int, "Registers of one block.", 65536),
            },
        ),
        Kind(
            "vulkan",
            "A GPU through SPIR-V.",
            {
                **_GPU,
                **_COMMON,
                "api": Attribute(str, "Vulkan version.", "1.1"),
                "spirv": Attribute(str, "SPIR-V version.", "1.3"),
                "subgroup_size": Attribute(int, "Invocations of a subgroup; 0 for unknown.", 0),
                "int8": Attribute(bool, "8-bit integers outside of buffers.", False),
                "int16": Attribute(bool, "16-bit integers outside of buffers.", False),
                "int64": Attribute(bool, "64-bit integer arithmetic.", False),
                "storage8": Attribute(bool, "8-bit storage buffers.", False),
                "storage16": Attribute(bool, "16-bit storage buffers.", False),
                "float_controls": Attribute(
                    bool, "Keeps NaN, infinities, signed zeros, and rounds to nearest, where told to.", False
                ),
                "loop_iterations": Attribute(
                    int, "After so many iterations of all its loops a thread leaves them, wrongly; 0 for never.", 0
                ),
                "storage_buffer_bytes": Attribute(
                    int, "Bytes that a descriptor of a buffer reaches; a larger buffer is bound in parts.", 1 << 27
                ),
                "push_constant_bytes": Attribute(int, "Room for the scalar arguments of a kernel.", 128),
            },
        ),
    )
}


def suggest(word: str, known: Iterable[str]) -> str:
    """`` (did you mean ...?)`` with the nearest known words, or nothing."""
    near = difflib.get_close_matches(word, list(known), n=3, cutoff=0.5)
    return f"did you mean {' or '.join(repr(n) for n in near)}?" if near else ""


def check_attributes(kind: Kind, given: dict[str, object]) -> dict[str, Value]:
    """``given`` checked against the kind's schema; lists become tuples. Raises InvalidTarget naming the attribute."""
    checked: dict[str, Value] = {}
    for name, value in given.items():
        schema = kind.attributes.get(name)
        if schema is None:
            raise InvalidTarget(
                f"target kind {kind.name!r} has no attribute {name!r}",
                hint=suggest(name, kind.attributes) or f"it has: {', '.join(kind.attributes)}",
            )
        checked[name] = _check_value(kind, name, schema, value)
    if kind.name == "llvm":
        _check_cpu(checked)
    return checked


def _check_value(kind: Kind, name: str, schema: Attribute, value: object) -> Value:
    where = f"attribute {name!r} of target kind {kind.name!r}"
    if schema.type is tuple and isinstance(value, (list, tuple)):
        if len(value) > MAX_TEXTS or not all(isinstance(v, str) and len(v) <= MAX_TEXT for v in value):
            raise InvalidTarget(f"{where} must be at most {MAX_TEXTS} strings of at most {MAX_TEXT} characters")
        return tuple(value)
    if type(value) is not schema.type or schema.type is tuple:
        wanted = {str: "a string", int: "an integer", bool: "true or false", tuple: "a list of strings"}[schema.type]
        raise InvalidTarget(f"{where} must be {wanted}, not {value!r}"[:MAX_TEXT])
    if isinstance(value, str):
        if len(value) > MAX_TEXT:
            raise InvalidTarget(f"{where} is longer than {MAX_TEXT} characters")
        if schema.choices and value not in schema.choices:
            hint = suggest(value, schema.choices) or f"known are: {', '.join(schema.choices)}"
            raise InvalidTarget(f"{where} cannot be {value!r}", hint=hint)
        return value
    if isinstance(value, int) and not 0 <= value <= MAX_NUMBER:
        raise InvalidTarget(f"{where} must lie between 0 and 2**62, not {value}"[:MAX_TEXT])
    assert isinstance(value, int)
    return value


def _check_cpu(given: dict[str, Value]) -> None:
    arch = given.get("arch")
    arches = [arch] if isinstance(arch, str) else list(cpu.ARCHES)
    models = [name for a in arches for name in cpu.MODELS[a]]
    for key in ("cpu", "tune"):
        if key in given and given[key] not in models:
            of = f" of {arch}" if arch else ""
            hint = suggest(str(given[key]), models) or f"known are: {', '.join(models)}"
            raise InvalidTarget(f"unknown CPU model{of} in attribute {key!r}: {given[key]!r}", hint=hint)
    features = given.get("features", ())
    known = [name for a in arches for name in sorted(cpu.FEATURES[a])]
    for feature in features if isinstance(features, tuple) else ():
        if feature[:1] not in ("+", "-"):
            raise InvalidTarget(
                f"CPU feature {feature!r} needs a sign", hint=f"write it as '+{feature}' or '-{feature}'"
            )
        if feature[1:] not in known:
            of = f" of {arch}" if arch else ""
            raise InvalidTarget(f"unknown CPU feature{of}: {feature[1:]!r}", hint=suggest(feature[1:], known))
