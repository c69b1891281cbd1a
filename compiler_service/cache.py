"""The build cache: which artifact a request gave before. Kept beside the artifacts, so that it survives restarts.

The key is a SHA-256 over everything that shapes the bytes: the module's canonical form, the resolved targets, the build
options, the tools' versions, the compiler's own code and the format versions. An entry that cannot be trusted (torn,
or its artifact missing or damaged) is a miss, and the build that follows heals it.
"""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Mapping, Sequence
from functools import cache
from importlib import metadata
from pathlib import Path

import crossfarm
from compiler_service.linker import linker_version
from compiler_service.runtime import zig_version
from crossfarm.artifact.files import write_atomically
from crossfarm.artifact.store import LocalStore, check_digest
from crossfarm.compat import envelope
from crossfarm.compat.versions import ARTIFACT_VERSION, IR_READABLE, NATIVE_ABI
from crossfarm.errors import BuildFailed, InvalidArtifact, InvalidModule, NotFound
from crossfarm.target import Target
from crossfarm.wire.v1.compiler_pb2 import BuildOptions

log = logging.getLogger(__name__)

#: Counted up when the same key must not find what older releases kept.
_SCHEME = 1


def build_key(module: bytes, targets: Sequence[Target], options: BuildOptions, toolchain: Mapping[str, str]) -> str:
    """The key of a request, 64 hex digits.

    Args:
        module: a .cfir file; what counts is the payload, not which release wrote the envelope.
        targets: resolved: none leaves open what it depends on.

    Raises:
        InvalidModule: the envelope is damaged, or of another kind or version.
    """
    opened = envelope.read(module, "ir", IR_READABLE, error=InvalidModule, what="the module")
    what_counts = BuildOptions()
    what_counts.CopyFrom(options)
    what_counts.ClearField("timeout_ms")
    what_counts.ClearField("no_cache")
    facts = {
        "scheme": _SCHEME,
        "ir": [opened.version, opened.sha256.hex()],
        "targets": [target.to_json() for target in targets],
        "options": what_counts.SerializeToString(deterministic=True).hex(),
        "toolchain": dict(toolchain),
        "artifact_version": ARTIFACT_VERSION,
        "native_abi": NATIVE_ABI,
    }
    return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()


@cache
def toolchain_identity() -> dict[str, str]:
    """Versions of the tools that shape an artifact, and a digest of the compiler's own code (a checkout changes while
    its release does not)."""
    roots = [Path(__file__).parent, *(Path(crossfarm.__file__).parent / name for name in ("ir", "target", "artifact"))]
    suffixes = (".py", ".c", ".h", ".zig")
    code = hashlib.sha256()
    for path in sorted(path for root in roots for path in root.rglob("*.*") if path.suffix in suffixes):
        code.update(path.name.encode() + b"\0" + hashlib.sha256(path.read_bytes()).digest())
    return {
        "crossfarm": crossfarm.__version__,
        "code": code.hexdigest(),
        "llvmlite": metadata.version("llvmlite"),
        "linker": linker_version(),
        "zig": _zig_version(),
    }


def _zig_version() -> str:
    """Of the compiler that makes the runtime of parallel loops; without one only modules with such loops fail."""
    try:
        return zig_version()
    except BuildFailed:
        return ""


class BuildCache:
    """Keys to artifacts in ``store``.

    Args:
        directory: holds one small file per key.
    """

    def __init__(self, directory: Path, store: LocalStore) -> None:
        self._directory = directory
        self._store = store
        directory.mkdir(parents=True, exist_ok=True)

    def find(self, key: str) -> tuple[str, bytes] | None:
        """Digest and bytes of the artifact that ``key`` gave, verified; None when it must be built."""
        try:
            digest = check_digest(self._path(key).read_text("ascii").strip())
            return digest, self._store.get(digest)
        except FileNotFoundError:
            return None
        except (NotFound, InvalidArtifact, UnicodeDecodeError) as failure:
            log.warning("cache entry %s is of no use, building again: %s", key[:12], failure)
            return None

    def keep(self, key: str, digest: str) -> None:
        """Remembers that ``key`` gives ``digest``. Raises ResourceExhausted when the disk is full."""
        path = self._path(key)
        path.parent.mkdir(exist_ok=True)
        write_atomically(path, f"{digest}\n".encode())

    def _path(self, key: str) -> Path:
        check_digest(key)
        return self._directory / key[:2] / key[2:]
