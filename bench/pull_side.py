"""Fairway's side of `./run bench pull`: `python -m bench.pull_side SOCKET IMAGE` prints the seconds of one pull."""

from __future__ import annotations

import sys
import tempfile
import time
from pathlib import Path

import trio

from proto import grpc_trio
from runtime.image_model import host_architecture
from runtime.model import RuntimeSettings
from runtime.registry.address import Endpoint, Source, parse_name
from runtime.registry.pull import Puller
from runtime.runtime import Runtime

SECONDS_MAX = 110.0


async def _pull(runtime: Runtime, image: str) -> float:
    name = parse_name(image)
    sources = [Source(Endpoint(name.registry, plain_http=True), name.repository)]
    began = time.monotonic()
    async with Puller() as puller:
        resolved = await puller.resolve(image, name.reference, sources, host_architecture())
        pulled = await puller.fetch(runtime.images, resolved, lambda *_: None)
    await runtime.images.unpack(pulled.image.manifest_digest)
    taken = time.monotonic() - began
    await runtime.images.remove(pulled.image.manifest_digest)
    return taken


async def _run(socket: Path, image: str) -> float:
    with tempfile.TemporaryDirectory() as folder:
        settings = RuntimeSettings(
            socket=socket,
            runc_root=Path(folder) / "runc",
            log_folder=Path(folder) / "logs",
            run_folder=Path(folder) / "run",
        )
        async with trio.open_nursery() as nursery:
            runtime = Runtime(settings)
            await nursery.start(runtime.run)
            with trio.fail_after(SECONDS_MAX):
                await runtime.wait_healthy()
                taken = await _pull(runtime, image)
            nursery.cancel_scope.cancel()
    return taken


def main() -> int:
    print(grpc_trio.run(_run, Path(sys.argv[1]), sys.argv[2]))
    return 0


if __name__ == "__main__":
    sys.exit(main())
