"""What a container uses and which processes it has, by the kernel's own files."""

from __future__ import annotations

from pathlib import Path

import pytest
import trio

from proto.hands_pb2 import TaskProcess
from proto.objects_pb2 import ContainerSpec, Resources
from runtime import cgroup
from runtime.errors import NotFound
from runtime.model import LoadedImage, RuntimeSettings
from runtime.processes import processes_of
from runtime.runtime import Runtime
from runtime.usage import network_bytes, read_usage, usage_of
from tests.runtime.conftest import drive, request_for

INTERFACES = """Inter-|   Receive                                        |  Transmit
 face |bytes    packets errs drop fifo frame compressed multicast|bytes    packets errs drop
    lo:    1000      10    0    0    0     0          0         0     1000      10    0    0
  eth0:12345678     100    0    0    0     0          0         0      777      50    0    0
  eth1:      22       1    0    0    0     0          0         0        3       1    0    0
"""


def test_interfaces_are_added_up_without_the_loopback() -> None:
    assert network_bytes(INTERFACES) == (12345700, 780)
    assert network_bytes("") == (0, 0)


def test_version_2_of_control_groups(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cgroup, "CGROUP_FOLDER", tmp_path)
    folder = tmp_path / "fairway" / "id1"
    folder.mkdir(parents=True)
    (folder / "cpu.stat").write_text("usage_usec 2500\nuser_usec 2000\n")
    (folder / "memory.current").write_text("1000\n")
    (folder / "memory.stat").write_text("anon 5\ninactive_file 300\n")
    (folder / "memory.max").write_text("max\n")
    (folder / "pids.current").write_text("7\n")
    (folder / "io.stat").write_text("8:0 rbytes=10 wbytes=20 rios=1\n7:1 rbytes=1 wbytes=2 dbytes=9\n7:2 \n")
    usage = read_usage(cgroup.Groups(cgroup.CgroupHost("v2", (), False), "/fairway"), "id1", 0)
    assert (usage.cpu_ns, usage.memory_bytes, usage.memory_limit_bytes) == (2_500_000, 700, 0)
    assert (usage.processes, usage.read_bytes, usage.written_bytes) == (7, 11, 22)


def at_work(shell: TaskProcess, child: TaskProcess) -> bool:
    return shell.cpu_millis > 100 and (child.command, child.cpu_millis) == ("sleep 1000", 0)


def test_a_container_that_works_is_seen_to(settings: RuntimeSettings, image: LoadedImage) -> None:
    resources = Resources(memory_limit_bytes=64 << 20)
    spec = ContainerSpec(user="1234")
    request = request_for(image, "sh", "-c", "sleep 1000 & while :; do :; done", spec=spec, resources=resources)

    async def body(runtime: Runtime) -> None:
        await runtime.create(request)
        host_id = await runtime.start(request.id)
        try:
            before = (await usage_of(runtime, [request.id, "other"]))[0]
            reply = await processes_of(runtime, request.id)
            while not (len(reply.processes) == 2 and at_work(*reply.processes)):  # a busy host gives it little
                reply = await processes_of(runtime, request.id)
            after = (await usage_of(runtime, [request.id]))[0]
            assert after.cpu_ns > before.cpu_ns and after.sampled_ns > before.sampled_ns
            assert after.memory_limit_bytes == 64 << 20 and 0 < after.memory_bytes < 64 << 20
            assert after.processes == 2
            first, second = reply.processes
            assert (first.id, first.parent, first.host_id, first.user) == (1, 0, host_id, "1234")
            assert "while :" in first.command and first.state in "RSD"
            assert second.parent == 1
        finally:
            await runtime.delete(request.id)
        with pytest.raises(NotFound):
            await processes_of(runtime, request.id)
        assert await usage_of(runtime, [request.id]) == []
        await trio.sleep(0)

    drive(settings, body)
