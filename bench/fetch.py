"""An image of 200 MB to all three hosts of a cluster at the same time, out of Debian's docker-registry, beside `ctr
content fetch` on each host at the same time.

All hosts share this machine's CPUs and disk. The registry's log says how much of the image was read there: with
Fairway each blob once, whatever the number of hosts; the hosts have the rest from each other, over mutual TLS.
"""

from __future__ import annotations

import secrets
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import grpc

from bench.programs import output_of
from bench.pull import LAYER_BYTES, LAYERS, Registry, fill, registry, require_skopeo
from bench.table import Report, Row, quotient
from lab.cluster import Lab
from lab.layout import LabError
from proto import control_pb2, control_pb2_grpc

RUNS = 3
HOSTS = 3
PORT = 5000
SECONDS_MAX = 120.0
POLL_SECONDS = 0.02
READ_MAX = 1.01  # of the image's size: each blob once, and HTTP's share


def measure(_sides: Sequence[str]) -> Report:
    """Alternates the sides; each begins with nothing of the image on any host."""
    require_skopeo()
    seconds: dict[str, list[float]] = {"fairway": [], "ctr": []}
    read: dict[str, list[float]] = {"fairway": [], "ctr": []}
    lab = Lab.make(f"bench-{secrets.token_hex(3)}", HOSTS)
    folder = Path(tempfile.mkdtemp(prefix="fairway-bench-"))
    try:
        lab.client("registry")

        def within(argv: Sequence[str]) -> list[str]:
            return lab.command_in("registry", argv)

        with registry(folder / "registry", f"{lab.address('registry')}:{PORT}", within) as source:
            image = fill(source.address, folder, within)
            cluster = _Cluster(lab, image, source)
            for run in range(RUNS):
                for name, side in (("fairway", cluster.fairway), ("ctr", cluster.ctr)):
                    before = source.blob_bytes()
                    seconds[name].append(side())
                    read[name].append((source.blob_bytes() - before) / 1e6)
                    told = f"{seconds[name][-1]:.2f} s, {read[name][-1]:.0f} MB out of the registry"
                    print(f"run {run + 1} of {RUNS}: {name}: {told}", file=sys.stderr, flush=True)
    finally:
        lab.down()
        shutil.rmtree(folder)
    size_mb = LAYERS * LAYER_BYTES / 1e6
    once = max(read["fairway"]) <= READ_MAX * size_mb
    return Report(
        "fetch",
        f"an image of {LAYERS * LAYER_BYTES >> 20} MB and {LAYERS} layers on {HOSTS} hosts",
        [
            Row(
                "until all hosts hold it",
                "s",
                seconds["fairway"],
                "ctr",
                seconds["ctr"],
                "ctr's time / Fairway's",
                quotient(seconds["ctr"], seconds["fairway"]),
            ),
            Row(
                "read from the registry",
                "MB",
                read["fairway"],
                "ctr",
                read["ctr"],
                "ctr's / Fairway's",
                quotient(read["ctr"], read["fairway"]),
                f"once, {size_mb:.0f} MB",
                once,
            ),
        ],
        ["ctr content fetch on each host at the same time; both without unpacking"],
    )


class _Cluster:
    def __init__(self, lab: Lab, image: str, source: Registry) -> None:
        self._lab = lab
        self._image = image
        channel = grpc.insecure_channel(f"unix:{lab.socket('host-1')}")
        self._control = control_pb2_grpc.ControlStub(channel)
        request = control_pb2.UpdateRegistryRequest(registry=source.address, insecure=True)
        self._control.UpdateRegistry(request)

    def fairway(self) -> float:
        began = time.monotonic()
        request = control_pb2.PullImageRequest(image=self._image, refresh=True)
        for _ in self._control.PullImage(request, timeout=SECONDS_MAX):
            pass
        while self._holders() < HOSTS:
            if time.monotonic() - began > SECONDS_MAX:
                raise LabError(f"after {SECONDS_MAX:.0f} s {self._holders()} hosts have the image")
            time.sleep(POLL_SECONDS)
        taken = time.monotonic() - began
        self._control.RemoveImage(control_pb2.RemoveImageRequest(image=self._image))
        for host in self._lab.hosts():  # not a minute later, as by itself
            output_of(self._ctr(host, "fairway", "image", "rm", "--sync", self._image), "ctr image rm")
        return taken

    def _holders(self) -> int:
        images = self._control.ListImages(control_pb2.ListImagesRequest()).images
        return max((len(image.node_ids) for image in images if image.meta.name == self._image), default=0)

    def ctr(self) -> float:
        began = time.monotonic()
        running = [
            subprocess.Popen(
                self._ctr(host, "peer", "content", "fetch", "--plain-http", self._image), stdout=subprocess.DEVNULL
            )
            for host in self._lab.hosts()
        ]
        codes = [process.wait(SECONDS_MAX) for process in running]
        if any(codes):
            raise LabError("ctr content fetch failed")
        taken = time.monotonic() - began
        for host in self._lab.hosts():
            output_of(self._ctr(host, "peer", "image", "rm", "--sync", self._image), "ctr image rm")
        return taken

    def _ctr(self, host: str, namespace: str, *arguments: str) -> list[str]:
        return self._lab.command_in(host, ["ctr", "-n", namespace, *arguments])
