"""Containers run by another runtime than runc, chosen by name."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from lab import cgroups
from proto.objects_pb2 import ContainerSpec, Isolation, Resources
from runtime import errors, oci_runtimes
from runtime.model import LoadedImage, RuntimeSettings
from runtime.runtime import Runtime
from tests.runtime import image_builder
from tests.runtime.conftest import Containerd, drive, end_leftovers, output_of, remove_mounts, request_for

CRUN = ContainerSpec(isolation=Isolation(runtime="crun"))
LIMITS = Resources(memory_limit_bytes=32 << 20, pids_limit=20, cpu_limit_millis=500)
# Debian's crun runs nothing where controllers are left to control groups v2 beside v1: it sees none of them.
CONTROLLERS = Path("/sys/fs/cgroup/unified/cgroup.controllers")
WITHOUT_THEM = ["unshare", "--mount", "sh", "-c", f'mount --bind /dev/null {CONTROLLERS}; exec "$@"', "sh"]


@pytest.fixture
def for_crun() -> Iterator[RuntimeSettings]:
    with tempfile.TemporaryDirectory(prefix="fwcrun-") as name:
        folder = Path(name)
        server = Containerd(folder)
        try:
            server.start(WITHOUT_THEM if CONTROLLERS.exists() else ())
            yield RuntimeSettings(
                folder / "c.sock",
                folder / "runc",
                folder / "logs",
                folder / "run",
                runtimes=("crun",),
                cgroup_parent=f"/{folder.name}",
            )
        finally:
            server.kill()
            end_leftovers(folder)
            remove_mounts(folder)
            assert not cgroups.remove(f"/{folder.name}", timeout_seconds=60)


def test_crun_runs_containers_as_runc_does(for_crun: RuntimeSettings, tmp_path: Path) -> None:
    async def body(runtime: Runtime) -> None:
        image = (await runtime.images.load_archive(image_builder.oci_layout(tmp_path / "image.tar")))[0]
        request = request_for(image, "sleep", "1000", spec=CRUN, resources=LIMITS)
        await runtime.create(request)
        process_id = await runtime.start(request.id)
        assert (for_crun.runc_root.with_name("runc-crun") / "fairway" / request.id).exists()
        assert (await runtime.run_check(request.id, ["sh", "-c", "exit 3"], 30_000))[0] == 3
        async with await runtime.exec(request.id, ["sh", "-c", "stty size && echo a terminal"], tty=True) as session:
            assert b"a terminal" in b"".join([data async for _, data in session.outputs()])
        groups = runtime.groups.of(request.id)
        assert any(
            str(process_id) in (group / "cgroup.procs").read_text().split() for group in groups if group.exists()
        )
        (seen,) = await runtime.list()
        assert (seen.state, seen.pid) == ("running", process_id)
        assert (await runtime.stop(request.id, "KILL", 1000)).exit_code == 137
        await runtime.delete(request.id)
        assert not await runtime.list()
        assert not any(group.exists() for group in groups)
        hog = request_for(image, "dd", "if=/dev/zero", "of=/dev/null", "bs=64M", spec=CRUN, resources=LIMITS)
        await runtime.create(hog)
        await runtime.start(hog.id)
        ended = await runtime.wait(hog.id)
        assert (ended.exit_code, ended.out_of_memory) == (137, True)
        await runtime.delete(hog.id)
        assert await output_of(runtime, request_for(image, "echo", "hello", spec=CRUN)) == (0, "hello")
        with pytest.raises(errors.CannotStart, match="no-such-program"):
            await runtime.create(request_for(image, "no-such-program", spec=CRUN))

    drive(for_crun, body)


def test_a_runtime_that_the_host_does_not_have_is_named(settings: RuntimeSettings, image: LoadedImage) -> None:
    async def body(runtime: Runtime) -> None:
        with pytest.raises(errors.MissingFeature, match="crun is none of this host's"):
            await runtime.create(request_for(image, "true", spec=CRUN))

    drive(settings, body)


def test_only_what_is_installed_is_offered() -> None:
    named = ("no-such-runtime", "io.containerd.kata.v2", "io.containerd.runc.v1")
    assert oci_runtimes.installed(named) == ["runc", "io.containerd.runc.v1"]
    assert oci_runtimes.program_of("io.containerd.kata-qemu.v2") == "containerd-shim-kata-qemu-v2"
    with pytest.raises(errors.MissingFeature, match="containerd-shim-kata-v2"):
        oci_runtimes.find("io.containerd.kata.v2", named, Path("/run/x"))
