"""Compiles the .proto files of this folder; `--check` only says whether the stubs are up to date."""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

FOLDER = Path(__file__).parent
WITH_SERVICES = ("control", "host")
PLAIN = (
    "devices",
    "nodes",
    "files",
    "policies",
    "rollouts",
    "registries",
    "budgets",
    "precedence",
    "health",
    "autoscale",
    "containers",
    "encryption",
    "objects",
    "store",
    "raft",
    "containerd",
    "backup",
    "doctor",
    "why",
    "policy_api",
    "budgets_api",
    "hands",
    "garbage",
    "otlp_logs",
)


def compile_into(target: Path) -> None:
    """Writes all stubs below `target`/proto; raises RuntimeError where protoc refuses a file."""
    from grpc_tools import protoc

    root = FOLDER.parent
    for names, extra in (
        (PLAIN + WITH_SERVICES, [f"--python_out={target}", f"--mypy_out=quiet:{target}"]),
        (WITH_SERVICES, [f"--grpc_python_out={target}", f"--mypy_grpc_out=quiet:{target}"]),
    ):
        files = [f"proto/{name}.proto" for name in names]
        include = Path(protoc.__file__).parent / "_proto"
        arguments = ["protoc", f"-I{root}", f"-I{include}", *extra, *files]
        if protoc.main(arguments) != 0:
            raise RuntimeError(f"protoc refused one of {', '.join(files)}; its message is above")


def generated(folder: Path) -> dict[str, bytes]:
    """File name -> content of every stub in `folder`."""
    return {path.name: path.read_bytes() for path in sorted(folder.glob("*_pb2*.py*")) if path.is_file()}


def main() -> int:
    with tempfile.TemporaryDirectory() as folder:
        compile_into(Path(folder))
        fresh = generated(Path(folder) / "proto")
    if "--check" in sys.argv[1:]:
        present = generated(FOLDER)
        stale = sorted(name for name in fresh.keys() | present.keys() if fresh.get(name) != present.get(name))
        if stale:
            sys.stderr.write(f"stubs are not up to date: {', '.join(stale)}; run: python -m proto.generate\n")
        return 1 if stale else 0
    for name, content in fresh.items():
        (FOLDER / name).write_bytes(content)
    return 0


if __name__ == "__main__":
    sys.exit(main())
