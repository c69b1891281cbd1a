"""``Target``: what code is built for. One concept from one word to a heterogeneous system.

How a target is written::

    Target("raspberry-pi/4b")                                 a tag
    Target("llvm")                                            a kind, all attributes open
    Target("llvm cpu=znver4 features=+avx512bf16")            a kind or tag with attributes
    Target("aarch64-linux-android")                           a triple: a CPU
    Target("opencl", host="aarch64-linux-android")            a device and its host
    Target({"kind": "llvm", "arch": "aarch64"})               a mapping, or the same as JSON text
    Target(["x86-64-v3", "aarch64-linux-generic"])            several: one artifact with a variant each

What a target does not say stays open. ``attributes`` answers for open ones with defaults: a CPU target without an
architecture is the machine's where it is asked, so plain ``llvm`` means the machine that builds, at a baseline that
others of its architecture run too (``x86-64-v3``, or less where that machine has less). For the very machine with all
its instructions say ``native``; for a device, take the device's own ``target``.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from types import MappingProxyType
from typing import Any, Union

from crossfarm.errors import InvalidTarget
from crossfarm.target import cpu
from crossfarm.target.kinds import KINDS, Kind, Value, check_attributes, suggest
from crossfarm.target.tags import TAGS
from crossfarm.target.triples import HOSTS, looks_like_triple, parse_triple
from crossfarm.wire.v1 import artifact_pb2

Spec = Union["Target", str, Mapping[str, Any], Sequence[Any]]

#: Kind of a target that is several.
MULTI = "multi"
MAX_SUBTARGETS = 16
MAX_JSON = 64 << 10
_STRUCTURE = ("kind", "tag", "host", "targets")


class Target:
    """An immutable target; equal and hashed by content (kind, given attributes, host, parts), never by its tag.

    Args:
        spec: see the module's examples.
        host: the CPU that drives the device, for kinds other than ``llvm``; as ``spec``.

    Attributes:
        kind: a name of ``KINDS``, or ``"multi"``.
        given: the attributes that were said, and only those: what travels and what equality sees.
        host: the host's Target, or None.
        targets: the parts of a multi-target, else ().
        tag: the word it was made from, ``""`` for none.

    Raises:
        InvalidTarget: unknown kind, tag or attribute (the message names the nearest known), or a wrong value.
    """

    __slots__ = ("_attributes", "_key", "given", "host", "kind", "tag", "targets")

    kind: str
    given: Mapping[str, Value]
    host: Target | None
    targets: tuple[Target, ...]
    tag: str
    _key: str
    _attributes: Mapping[str, Value] | None

    def __init__(self, spec: Spec, *, host: Spec | None = None) -> None:
        tree = _read(spec)
        if host is not None:
            if tree.get("host") is not None:
                raise InvalidTarget(f"target {_show(spec)} has a host already; host= cannot give another")
            tree = {**tree, "host": host}
        self._fill(tree)

    def _fill(self, tree: Mapping[str, Any]) -> None:
        tag, parts, host = tree.get("tag") or "", tree.get("targets") or (), tree.get("host")
        kind_name = tree.get("kind") or (MULTI if parts else None)
        given = {k: v for k, v in tree.items() if k not in _STRUCTURE}
        if not isinstance(tag, str) or len(tag) > 256 or not tag.isprintable():
            raise InvalidTarget(f"a target's tag must be a short printable string, not {_show(tag)}")
        if kind_name == MULTI:
            if given or host is not None:
                raise InvalidTarget("a multi-target has no attributes and no host of its own: give them to its parts")
            targets = _parts(parts)
            checked: dict[str, Value] = {}
        else:
            if parts:
                raise InvalidTarget(f"a target of kind {kind_name!r} has no sub-targets", hint="leave 'kind' out")
            targets, checked = (), check_attributes(find_kind(kind_name), given)
        host_target = None if host is None else Target(host)
        if host_target is not None and (kind_name == "llvm" or host_target.kind != "llvm"):
            wrong = "a CPU target has no host" if kind_name == "llvm" else "a host must be a CPU target (kind 'llvm')"
            raise InvalidTarget(f"{wrong}: {_show(host)}")
        put = super().__setattr__
        put("kind", str(kind_name))
        put("given", MappingProxyType(dict(sorted(checked.items()))))
        put("host", host_target)
        put("targets", targets)
        put("tag", tag)
        put("_key", json.dumps(_tree(self, with_tag=False), sort_keys=True))
        put("_attributes", None)

    def __setattr__(self, name: str, value: object) -> None:
        raise AttributeError("a Target is immutable; use crossfarm.target.merge or make a new one")

    @classmethod
    def detect(cls) -> Target:
        """The target of this very machine: architecture, features, caches, cores. Needs no compiler."""
        from crossfarm.target.detect import detect  # takes psutil along, which nothing else here needs

        return cls(detect())

    @property
    def attributes(self) -> Mapping[str, Value]:
        """Given attributes, and defaults for the open ones that have one (see ``resolved``)."""
        if self._attributes is not None:
            return self._attributes
        attributes: Mapping[str, Value] = MappingProxyType({**_defaults(self), **self.given})
        super().__setattr__("_attributes", attributes)
        return attributes

    def resolved(self) -> Target:
        """The same target with nothing open that has a default; an open architecture becomes this machine's."""
        if self.kind == MULTI:
            return _make({"targets": [t.resolved() for t in self.targets], "tag": self.tag})
        host = self.host.resolved() if self.host else None
        return _make({**self.attributes, "kind": self.kind, "host": host, "tag": self.tag})

    def variants(self) -> tuple[Target, ...]:
        """The parts of a multi-target, or the target itself: what becomes one variant each."""
        return self.targets or (self,)

    def buildable_reason(self) -> str | None:
        """Why this release cannot build for the target, or None when it can."""
        for part in self.variants():
            kind = KINDS[part.kind]
            if kind.why_not:
                return f"this server cannot build for it yet: {kind.why_not}"
            if part.kind != "llvm":
                continue  # its kernels are launched by the agent: there is no code for the host
            arch, system = part.attributes.get("arch"), part.attributes.get("os")
            if (arch, system) not in HOSTS:
                return f"this server cannot build for it yet: no linking for {arch} on {system} yet"
        return None

    def enabled_features(self) -> frozenset[str]:
        """CPU features (names of ``crossfarm.target.cpu``) that code for this CPU target may use, thus needs."""
        at = self.attributes
        features = at.get("features", ())
        assert isinstance(features, tuple)
        return cpu.enabled_features(str(at.get("arch")), str(at.get("cpu")), features)

    def to_json(self) -> str:
        """One line of JSON with sorted keys; ``Target(text)`` and ``from_json`` read it."""
        return json.dumps(_tree(self, with_tag=True), sort_keys=True)

    @classmethod
    def from_json(cls, text: str) -> Target:
        """Reads ``to_json``'s text, or JSON by hand. Raises InvalidTarget."""
        return cls(_parse_json(text))

    def to_proto(self) -> artifact_pb2.Target:
        """The message that travels; holds ``given``, so what is open stays open."""
        message = artifact_pb2.Target(kind=self.kind, tag=self.tag)
        for name, value in self.given.items():
            attribute = message.attributes[name]
            if isinstance(value, bool):
                attribute.flag = value
            elif isinstance(value, int):
                attribute.number = value
            elif isinstance(value, str):
                attribute.text = value
            else:
                attribute.texts.values[:] = value
                attribute.texts.SetInParent()
        if self.host is not None:
            message.host.CopyFrom(self.host.to_proto())
        message.targets.extend(t.to_proto() for t in self.targets)
        return message

    @classmethod
    def from_proto(cls, message: artifact_pb2.Target) -> Target:
        """Reads and validates a message from outside. Raises InvalidTarget."""
        return _make(_from_proto(message, depth=0))

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Target) and self._key == other._key

    def __hash__(self) -> int:
        return hash(self._key)

    def __repr__(self) -> str:
        return f"Target({self.tag!r})" if self.tag and Target(self.tag) == self else f"Target({self.to_json()})"

    @property
    def label(self) -> str:
        """A few words for tables and messages: the tag, or what tells it from others; not meant to be read back."""
        if self.tag:
            return self.tag
        if self.kind == MULTI:
            return ", ".join(part.label for part in self.targets)
        at = self.attributes
        if self.kind == "llvm":
            return f"llvm {at['arch']}-{at['os']} {at['cpu']}"
        return f"{self.kind} {at['model']}" if "model" in at else self.kind

    def __str__(self) -> str:
        """Its tag, or a short description that ``Target`` reads back where it has no host and no parts."""
        if self.tag:
            return self.tag
        if self.kind == MULTI:
            return ", ".join(map(str, self.targets))
        words = [f"{k}={','.join(v) if isinstance(v, tuple) else _word(v)}" for k, v in self.given.items()]
        return " ".join([self.kind, *words]) + (f" (host {self.host})" if self.host else "")

    def __reduce__(self) -> tuple[Any, ...]:
        return (Target.from_json, (self.to_json(),))


def merge(a: Spec, b: Spec) -> Target:
    """Both partial targets in one: what either says, the merged one says.

    Kinds must be equal. An attribute that only one gives is taken; given by both it must be equal, except ``features``,
    ``extensions`` and other lists, which are united in order (``+x`` in one and ``-x`` in the other is a conflict).
    Hosts merge by the same rule. Multi-targets merge only with equal ones. The tag is kept where one side adds nothing.

    Raises:
        InvalidTarget: for each conflict, one message naming the attribute and both values.
    """
    left, right = Target(a), Target(b)
    if left == right:
        return left
    if MULTI in (left.kind, right.kind):
        raise InvalidTarget(f"cannot merge {left} with {right}: multi-targets merge only with equal ones")
    if left.kind != right.kind:
        raise InvalidTarget(
            f"cannot merge {left} with {right}: kind is {left.kind!r} in one and {right.kind!r} in the other"
        )
    merged: dict[str, Any] = {"kind": left.kind}
    for name in {**left.given, **right.given}:
        merged[name] = _merge_value(name, left.given.get(name), right.given.get(name))
    hosts = [side.host for side in (left, right) if side.host is not None]
    merged["host"] = None if not hosts else hosts[0] if len(hosts) == 1 else merge(*hosts)
    result = _make(merged)
    for side in (left, right):
        if side == result:
            return side
    return result


def find_kind(name: object) -> Kind:
    """The kind of that name. Raises InvalidTarget with the nearest known."""
    if not isinstance(name, str):
        raise InvalidTarget("a target needs a 'kind'", hint=f"known are: {', '.join(KINDS)}")
    if name not in KINDS:
        raise InvalidTarget(
            f"unknown target kind {_show(name)}", hint=suggest(name, KINDS) or f"known are: {', '.join(KINDS)}"
        )
    return KINDS[name]


def known_words() -> Iterator[str]:
    """Kinds, tags and ``native``: every single word that names a target."""
    yield from KINDS
    yield from TAGS
    yield "native"


def _merge_value(name: str, x: Value | None, y: Value | None) -> Value:
    if x is None or y is None or x == y:
        value = y if x is None else x
        assert value is not None
        return value
    if isinstance(x, tuple) and isinstance(y, tuple):
        for feature in x:
            opposite = {"+": "-", "-": "+"}.get(feature[:1], "") + feature[1:]
            if opposite in y and opposite != feature[1:]:
                raise InvalidTarget(f"cannot merge targets: {name} has {feature} in one and {opposite} in the other")
        return tuple(dict.fromkeys((*x, *y)))
    raise InvalidTarget(f"cannot merge targets: {name} is {x!r} in one and {y!r} in the other")


def _make(tree: Mapping[str, Any]) -> Target:
    target = Target.__new__(Target)
    target._fill(tree)
    return target


def _parts(parts: object) -> tuple[Target, ...]:
    if not isinstance(parts, (list, tuple)) or not 1 <= len(parts) <= MAX_SUBTARGETS:
        raise InvalidTarget(f"a multi-target has between 1 and {MAX_SUBTARGETS} parts")
    targets = tuple(Target(part) for part in parts)
    for i, part in enumerate(targets):
        if part.kind == MULTI:
            raise InvalidTarget("a multi-target cannot hold another one", hint="list the parts in one target")
        if part in targets[:i]:
            raise InvalidTarget(f"a multi-target names {part} twice")
    return targets


def _read(spec: Spec) -> Mapping[str, Any]:
    """Any spelling as a mapping with kind, tag, host, targets and attributes."""
    if isinstance(spec, Target):
        return _tree(spec, with_tag=True)
    if isinstance(spec, str):
        return _read_text(spec)
    if isinstance(spec, Mapping):
        if not all(isinstance(k, str) for k in spec):
            raise InvalidTarget(f"a target's keys must be strings: {_show(spec)}")
        if "kind" not in spec and isinstance(spec.get("tag"), str):
            base = _read_word(spec["tag"])
            changed = {k: v for k, v in spec.items() if k != "tag"}
            return {**base, **changed, "tag": "" if changed else base["tag"]}
        return spec
    if isinstance(spec, Sequence) and not isinstance(spec, (bytes, bytearray)):
        return {"targets": list(spec)}
    raise InvalidTarget(f"cannot make a target of {_show(spec)}", hint="give a word, a mapping, JSON text or a list")


def _read_text(text: str) -> Mapping[str, Any]:
    stripped = text.strip()
    if stripped[:1] in ("{", "["):
        return _read(_parse_json(stripped))
    words = stripped.split()
    if not words:
        raise InvalidTarget("a target cannot be empty", hint="say 'llvm', or a tag; `crossfarm targets` lists them")
    tree = dict(_read_word(words[0]))
    for word in words[1:]:
        name, equals, value = word.partition("=")
        if not equals or word.startswith("-"):
            raise InvalidTarget(
                f"cannot read {_show(word)} in target {_show(text)}",
                hint="attributes are written name=value, as in 'llvm arch=aarch64 cpu=cortex-a72'",
            )
        tree[name] = _value(str(tree.get("kind")), name, value)
        tree["tag"] = ""
    return tree


def _read_word(word: str) -> Mapping[str, Any]:
    if word in KINDS:
        return {"kind": word}
    if word in TAGS:
        row = TAGS[word]
        return {"targets": row, "tag": word} if isinstance(row, list) else {**row, "tag": word}
    if word == "native":
        return _tree(Target.detect(), with_tag=False)
    if looks_like_triple(word):
        arch, system = parse_triple(word)
        return {"kind": "llvm", "arch": arch, "os": system}
    raise InvalidTarget(
        f"unknown target {_show(word)}: it is no kind, tag or triple",
        hint=suggest(word, known_words()) or "`crossfarm targets` lists them",
    )


def _value(kind: str, name: str, text: str) -> object:
    schema = find_kind(kind).attributes.get(name)
    if schema is None or schema.type is str:
        return text
    if schema.type is tuple:
        return [part for part in text.split(",") if part]
    if schema.type is bool:
        return {"true": True, "1": True, "false": False, "0": False}.get(text, text)
    return int(text) if text.isdecimal() and len(text) < 20 else text


def _parse_json(text: str) -> Any:
    if len(text) > MAX_JSON:
        raise InvalidTarget(f"a target's JSON is longer than {MAX_JSON} bytes")
    try:
        tree = json.loads(text)
    except (ValueError, RecursionError) as failure:
        raise InvalidTarget(f"a target's JSON does not parse: {failure}") from failure
    if not isinstance(tree, (dict, list, str)):
        raise InvalidTarget(f"a target's JSON must be an object, a list or a string, not {_show(tree)}")
    return tree


def _from_proto(message: artifact_pb2.Target, depth: int) -> dict[str, Any]:
    if depth > 2:
        raise InvalidTarget("a target is nested too deep")
    tree: dict[str, Any] = {}
    for name, attribute in message.attributes.items():
        which = attribute.WhichOneof("value")
        if which is None or name in _STRUCTURE:
            raise InvalidTarget(f"a target's attribute {_show(name)} has no value that this release knows")
        tree[name] = tuple(attribute.texts.values) if which == "texts" else getattr(attribute, which)
    tree["kind"], tree["tag"] = message.kind, message.tag
    if message.HasField("host"):
        tree["host"] = _make(_from_proto(message.host, depth + 1))
    if message.targets:
        tree["targets"] = [_make(_from_proto(part, depth + 1)) for part in message.targets]
    return tree


def _tree(target: Target, *, with_tag: bool) -> dict[str, Any]:
    tree: dict[str, Any] = {k: list(v) if isinstance(v, tuple) else v for k, v in target.given.items()}
    tree["kind"] = target.kind
    if with_tag and target.tag:
        tree["tag"] = target.tag
    if target.host is not None:
        tree["host"] = _tree(target.host, with_tag=with_tag)
    if target.targets:
        tree["targets"] = [_tree(part, with_tag=with_tag) for part in target.targets]
    return tree


def _defaults(target: Target) -> dict[str, Value]:
    if target.kind == MULTI:
        return {}
    found = {name: a.default for name, a in KINDS[target.kind].attributes.items() if a.default is not None}
    return {**found, **_cpu_defaults(target.given)} if target.kind == "llvm" else found


def _cpu_defaults(given: Mapping[str, Value]) -> dict[str, Value]:
    arch = given.get("arch")
    open_arch = arch is None
    if open_arch and "cpu" in given:
        owners = [a for a in cpu.ARCHES if given["cpu"] in cpu.MODELS[a]]
        arch = owners[0] if len(owners) == 1 else None
    if arch is None:
        arch = cpu.host_arch() if cpu.host_arch() in cpu.ARCHES else "x86_64"
    model = given.get("cpu", cpu.BASELINE[str(arch)])
    if open_arch and "cpu" not in given and arch == "x86_64" == cpu.host_arch():
        model = min(str(model), cpu.x86_level(cpu.host_cpu_features()))  # level names sort by level
    features = given.get("features", ())
    assert isinstance(features, tuple)
    enabled = cpu.enabled_features(str(arch), str(model), features)
    system = cpu.host_os() if cpu.host_os() in ("linux", "android", "windows", "macos") else "linux"
    return {
        "arch": arch,
        "os": system if open_arch and "os" not in given else "linux",
        "cpu": model,
        "vector_bits": cpu.vector_bits(str(arch), enabled),
    }


def _word(value: Value) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


def _show(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 120 else f"{text[:117]}..."
