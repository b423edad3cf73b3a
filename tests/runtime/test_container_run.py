"""What a process in a container sees and may do."""

from __future__ import annotations

from proto.objects_pb2 import ContainerSpec, Resources
from runtime.model import LoadedImage, RuntimeSettings
from runtime.runtime import Runtime
from tests.runtime.conftest import drive, output_of, request_for


def run(settings: RuntimeSettings, image: LoadedImage, *command: str, **more: object) -> tuple[int, str]:
    async def body(runtime: Runtime) -> tuple[int, str]:
        return await output_of(runtime, request_for(image, *command, **more))  # type: ignore[arg-type]

    return drive(settings, body)


def test_exit_code_and_both_streams_arrive(settings: RuntimeSettings, image: LoadedImage) -> None:
    code, text = run(settings, image, "sh", "-c", "echo out; echo err >&2; exit 7")
    assert code == 7
    assert sorted(text.split()) == ["err", "out"]


def test_environment_user_folder_and_name(settings: RuntimeSettings, image: LoadedImage) -> None:
    spec = ContainerSpec(user="app", working_dir="/tmp", environment={"OWN": "1"})
    code, text = run(settings, image, "sh", "-c", "id; pwd; env; hostname", spec=spec, hostname="box")
    assert code == 0
    assert "uid=1000(app) gid=1000(app) groups=1000(app),2000(extra)" in text
    for line in ("/tmp", "OWN=1", "FROM_IMAGE=yes", "HOME=/home/app", "HOSTNAME=box", "box"):
        assert line in text.splitlines()


def test_the_root_can_be_read_only(settings: RuntimeSettings, image: LoadedImage) -> None:
    assert run(settings, image, "touch", "/x", spec=ContainerSpec(read_only=True))[0] != 0
    assert run(settings, image, "touch", "/x")[0] == 0


def test_default_privileges_are_few(settings: RuntimeSettings, image: LoadedImage) -> None:
    script = "grep -E '^(CapEff|NoNewPrivs|Seccomp):' /proc/self/status; unshare -U true || echo refused"
    _, text = run(settings, image, "sh", "-c", script, spec=ContainerSpec(no_new_privileges=True))
    assert "00000000a80425fb" in text
    assert "NoNewPrivs:\t1" in text
    assert "Seccomp:\t2" in text
    assert "refused" in text
    spec = ContainerSpec(cap_drop=["ALL"], cap_add=["CHOWN"])
    assert "0000000000000001" in run(settings, image, "sh", "-c", script, spec=spec)[1]


def test_processes_are_limited(settings: RuntimeSettings, image: LoadedImage) -> None:
    script = "for i in 1 2 3 4 5 6 7 8; do sleep 20 & done; wait"
    _, text = run(settings, image, "sh", "-c", script, resources=Resources(pids_limit=4))
    assert "can't fork" in text


def test_an_init_is_the_first_process(settings: RuntimeSettings, image: LoadedImage) -> None:
    _, text = run(settings, image, "cat", "/proc/1/comm", spec=ContainerSpec(init=True))
    assert text == "docker-init"
