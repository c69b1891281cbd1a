"""Generate ``crossfarm/wire/v1/*_pb2*.py`` from ``proto/crossfarm/v1/*.proto``.

The proto package is ``crossfarm.v1``; the stubs live in ``crossfarm.wire.v1``, so the one import line that protoc
writes for a sibling file is rewritten. Run from the project's root: ``python tools/generate_stubs.py``.
"""

import re
import sys
from importlib.resources import files
from pathlib import Path

from grpc_tools import protoc

ROOT = Path(__file__).resolve().parent.parent
OUT = ROOT / "crossfarm" / "wire" / "v1"
SIBLING_IMPORT = re.compile(r"^from crossfarm\.v1 import ", re.MULTILINE)


def main() -> int:
    protos = sorted((ROOT / "proto" / "crossfarm" / "v1").glob("*.proto"))
    scratch = ROOT / "build" / "stubs"
    scratch.mkdir(parents=True, exist_ok=True)
    include = files("grpc_tools") / "_proto"
    code = protoc.main(
        [
            "protoc",
            f"--proto_path={ROOT / 'proto'}",
            f"--proto_path={include}",
            f"--python_out={scratch}",
            f"--pyi_out={scratch}",
            f"--grpc_python_out={scratch}",
            *map(str, protos),
        ]
    )
    if code != 0:
        return int(code)
    OUT.mkdir(parents=True, exist_ok=True)
    (OUT / "__init__.py").write_text('"""Generated from proto/crossfarm/v1 by tools/generate_stubs.py."""\n')
    for generated in (scratch / "crossfarm" / "v1").iterdir():
        if generated.suffix in {".py", ".pyi"}:
            text = SIBLING_IMPORT.sub("from crossfarm.wire.v1 import ", generated.read_text())
            target = OUT / generated.name
            if not target.exists() or target.read_text() != text:
                target.write_text(text)
    return 0


if __name__ == "__main__":
    if (status := main()) != 0:
        sys.exit(status)
