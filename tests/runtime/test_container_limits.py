"""What the kernel refuses a container: system calls, memory, and files that were exchanged behind its back."""

from __future__ import annotations

import struct
from pathlib import Path

import pytest
import trio

from proto.objects_pb2 import ContainerSpec, Resources
from runtime import errors
from runtime.image_model import host_architecture
from runtime.model import BindMount, EventKind, LoadedImage, RuntimeSettings
from runtime.runtime import Runtime
from storage.bind_mounts import allowed_source
from storage.population import populate
from tests.runtime.conftest import drive, output_of, request_for

EPERM, ENOSYS = 1, 38
CLONE_NEWUSER, CLONE_NEWNET = 0x1000_0000, 0x4000_0000
# name -> (number on amd64, number on arm64, first argument, errno); numbers from the kernel's unistd.h.
CALLS = {
    "keyctl": (250, 219, 0, EPERM),
    "add_key": (248, 217, 0, EPERM),
    "request_key": (249, 218, 0, EPERM),
    "unshare_user": (272, 97, CLONE_NEWUSER, EPERM),
    "unshare_net": (272, 97, CLONE_NEWNET, EPERM),
    "clone3": (435, 435, 0, ENOSYS),
    "bpf": (321, 280, 0, EPERM),
    "io_uring_setup": (425, 425, 1, EPERM),
    "kexec_load": (246, 104, 0, EPERM),
    "init_module": (175, 105, 0, EPERM),
    "mount": (165, 40, 0, EPERM),
    "userfaultfd": (323, 282, 0, EPERM),
    "open_by_handle_at": (304, 265, 0, EPERM),
    "setuid": (105, 146, 0, 0),  # one that is allowed
}


def program(number: int, argument: int) -> bytes:
    """An ELF file that makes one system call, all other arguments 0, and exits with its errno."""
    if host_architecture() == "amd64":
        machine = 62
        code = b"\x31\xf6\x31\xd2\x4d\x31\xd2\x4d\x31\xc0\x4d\x31\xc9"  # xor esi, edx, r10, r8, r9
        code += b"\xbf" + struct.pack("<I", argument) + b"\xb8" + struct.pack("<I", number) + b"\x0f\x05"
        code += b"\xf7\xd8\x89\xc7\xb8\x3c\x00\x00\x00\x0f\x05"  # neg eax; mov edi, eax; exit
    else:
        machine = 183
        words = [0xD280_0001 + register for register in range(5)]  # movz x1..x5, 0
        words += [0xD280_0000 | (argument & 0xFFFF) << 5, 0xF2A0_0000 | (argument >> 16) << 5]
        words += [0xD280_0008 | number << 5, 0xD400_0001, 0xCB00_03E0, 0xD280_0BA8, 0xD400_0001]
        code = struct.pack(f"<{len(words)}I", *words)
    base, start = 0x40_0000, 64 + 56
    header = b"\x7fELF\x02\x01\x01" + bytes(9)
    header += struct.pack("<HHIQQQIHHHHHH", 2, machine, 1, base + start, 64, 0, 0, 64, 56, 1, 0, 0, 0)
    size = start + len(code)
    return header + struct.pack("<IIQQQQQQ", 1, 5, 0, base, base, size, size, 0x1000) + code


def test_system_calls_that_reach_the_kernel_are_refused(
    settings: RuntimeSettings, image: LoadedImage, tmp_path: Path
) -> None:
    folder = tmp_path / "calls"
    folder.mkdir()
    for name, (amd64, arm64, argument, _) in CALLS.items():
        (folder / name).write_bytes(program(amd64 if host_architecture() == "amd64" else arm64, argument))
        (folder / name).chmod(0o755)
    script = 'for p in /calls/*; do "$p"; echo "${p##*/} $?"; done'

    async def body(runtime: Runtime) -> None:
        request = request_for(image, "sh", "-c", script, mounts=(BindMount(folder, "/calls", read_only=True),))
        _, text = await output_of(runtime, request)
        assert dict(line.split() for line in text.splitlines()) == {name: str(call[3]) for name, call in CALLS.items()}

    drive(settings, body)


def test_a_child_that_is_killed_for_memory_is_an_event(settings: RuntimeSettings, image: LoadedImage) -> None:
    async def body(runtime: Runtime) -> None:
        greedy = (
            "until [ -f /tmp/go ]; do sleep 0.02; done; (x=aaaaaaaaaaaaaaaa; while :; do x=$x$x; done); echo survived"
        )
        request = request_for(image, "sh", "-c", greedy, resources=Resources(memory_limit_bytes=16 << 20))
        events = runtime.subscribe()
        await runtime.create(request)
        process_id = await runtime.start(request.id)
        Path(f"/proc/{process_id}/root/tmp/go").touch()  # its shim watches its memory only once it has started
        kinds: set[EventKind] = set()
        with trio.fail_after(60):
            while not {EventKind.OOM, EventKind.EXIT} <= kinds:
                event = await events.__anext__()
                if event.container_id == request.id:
                    kinds.add(event.kind)
        ended = await runtime.wait(request.id)
        assert (ended.exit_code, ended.out_of_memory) == (0, True)
        assert b"survived" in [line.text async for line in runtime.read_log(request.id, follow=True)]
        await runtime.delete(request.id)

    drive(settings, body)


def test_a_bind_mount_must_be_what_was_checked(settings: RuntimeSettings, image: LoadedImage, tmp_path: Path) -> None:
    allowed, secret = tmp_path / "allowed", tmp_path / "secret"
    (allowed / "data").mkdir(parents=True)
    (allowed / "data" / "file").write_text("fine")
    secret.mkdir()
    checked = allowed_source(str(allowed / "data"), (allowed,))
    mount = BindMount(checked.path, "/a/b", identity=(checked.device, checked.inode))

    async def body(runtime: Runtime) -> None:
        code, text = await output_of(runtime, request_for(image, "cat", "/a/b/file", mounts=(mount,)))
        assert (code, text) == (0, "fine")
        # Between check and mount, who may write to the folder puts a link in its place.
        (allowed / "data").rename(allowed / "moved")
        (allowed / "data").symlink_to(secret)
        request = request_for(image, "touch", "/a/b/evil", mounts=(mount,))
        with pytest.raises(errors.CannotStart, match="in its place"):
            await runtime.create(request)
        assert not list(secret.iterdir())
        assert request.id not in {container.id for container in await runtime.list()}

    drive(settings, body)


def test_a_fresh_volume_gets_what_the_image_has(settings: RuntimeSettings, image: LoadedImage, tmp_path: Path) -> None:
    volume = tmp_path / "volume"
    volume.mkdir()

    async def body(runtime: Runtime) -> None:
        await runtime.images.with_files(image.manifest_digest, lambda root: populate(volume, root, "/data"))
        assert (volume / "seed").read_text() == "from the image\n"
        assert (volume / "seed").stat().st_mode & 0o777 == 0o640
        assert volume.stat().st_mode & 0o777 == 0o750
        request = request_for(
            image, "sh", "-c", "cat /data/seed; echo 1 >/data/own", mounts=(BindMount(volume, "/data"),)
        )
        assert await output_of(runtime, request) == (0, "from the image")
        assert (volume / "own").exists()
        with pytest.raises(ZeroDivisionError):
            await runtime.images.with_files(image.manifest_digest, lambda _: 1 // 0)
        assert not list((settings.run_folder / "work").iterdir())

    drive(settings, body)


def test_a_terminal_is_one_stream(settings: RuntimeSettings, image: LoadedImage) -> None:
    async def body(runtime: Runtime) -> None:
        script = "test -t 0 && test -t 1 && test -t 2 && echo terminal; stty size; echo err >&2; echo $TERM"
        code, text = await output_of(runtime, request_for(image, "sh", "-c", script, spec=ContainerSpec(tty=True)))
        assert code == 0
        assert text.replace("\r", "").split("\n") == ["terminal", "24 80", "err", "xterm"]

    drive(settings, body)


@pytest.mark.parametrize("tty", [False, True])
def test_standard_input_stays_open_where_that_is_asked(
    settings: RuntimeSettings, image: LoadedImage, tty: bool
) -> None:
    async def body(runtime: Runtime) -> None:
        script = "echo up; cat; echo over"
        request = request_for(image, "sh", "-c", script, spec=ContainerSpec(stdin_open=True, tty=tty))
        await runtime.create(request)
        await runtime.start(request.id)
        read = runtime.read_log(request.id, follow=True)
        assert (await read.__anext__()).text.strip() == b"up"
        with trio.move_on_after(0.3) as scope:
            await read.__anext__()
        assert scope.cancelled_caught  # `cat` still waits
        assert (await runtime.stop(request.id, "SIGKILL", 5_000)).exit_code == 137
        await runtime.delete(request.id)

    drive(settings, body)


def test_standard_input_is_at_its_end_otherwise(settings: RuntimeSettings, image: LoadedImage) -> None:
    async def body(runtime: Runtime) -> None:
        assert await output_of(runtime, request_for(image, "sh", "-c", "cat; echo over")) == (0, "over")

    drive(settings, body)
