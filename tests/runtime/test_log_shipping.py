"""Lines of tasks reach receivers of every kind, at least once and in order, whoever was away meanwhile."""

from __future__ import annotations

import os
import re
import socket
import subprocess
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest
import trio

from lab import debian_packages
from proto import log_receivers, objects_pb2
from runtime import log_shipping
from runtime.logs import TaskLogs
from runtime.model import ContainerRequest, RuntimeSettings
from tests.runtime.conftest import until
from tests.runtime.log_receivers import Received, certificate, datagram_server, otlp_server, stream_server

TASK = "task1"
SYSLOG = re.compile(rb"<(\d+)>1 (\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z) (\S+) shop\.web\.1 task1 - - (.*)", re.DOTALL)


def with_task(
    base: Path, driver: str, options: dict[str, str], body: Callable[[TaskLogs, int], Awaitable[None]]
) -> None:
    """`body` gets the logs of a host and the end of a FIFO where "task1" writes."""
    request = ContainerRequest(
        TASK,
        "",
        objects_pb2.ContainerSpec(
            image="web:1", logging=objects_pb2.Logging(driver=log_receivers.DRIVERS[driver], options=options)
        ),
        objects_pb2.Resources(),
        {"fairway.task": "web.1", "fairway.service": "web", "fairway.app": "shop"},
    )
    settings = RuntimeSettings(base / "c.sock", base / "runc", base / "logs", base / "run")
    fifo = base / "run" / "io" / TASK / "out"

    async def main() -> None:
        async with trio.open_nursery() as nursery:
            logs = TaskLogs(settings, nursery)
            with trio.fail_after(90):
                first = not fifo.exists()
                writer = -1
                if not first:
                    writer = os.open(fifo, os.O_RDWR)
                logs.attach(TASK, running=not first, tty=True)
                if first:
                    writer = os.open(fifo, os.O_WRONLY)
                    logs.ship(request)
                await body(logs, writer)
            nursery.cancel_scope.cancel()

    trio.run(main)


def numbered(first: int, end: int) -> bytes:
    return b"".join(b"line %d\n" % number for number in range(first, end))


def syslog_texts(received: Received) -> list[bytes]:
    found = [SYSLOG.fullmatch(line) for line in received.lines]
    assert None not in found
    assert {match[1] for match in found if match} <= {
        b"134",
        b"131",
    }  # local0: informational, and error of what Fairway says
    return [match[4] for match in found if match]


@pytest.mark.parametrize("way", ["unix", "udp", "tcp", "tcp+tls"])
def test_syslog_gets_every_line(tmp_path: Path, way: str) -> None:
    context, ca = certificate(tmp_path) if way == "tcp+tls" else (None, tmp_path)
    if way == "unix":
        server = datagram_server(str(tmp_path / "log"))
    elif way == "udp":
        server = datagram_server(("127.0.0.1", 0))
    else:
        server = stream_server("syslog", context)
    with server as (place, received):
        port = place if isinstance(place, int) else place[1]
        address = f"unix://{tmp_path}/log" if way == "unix" else f"{way}://localhost:{port}"
        options = {"syslog-address": address, "syslog-facility": "local0", "syslog-format": "rfc5424"}
        if context is not None:
            options["syslog-tls-ca-cert"] = str(ca)

        async def body(logs: TaskLogs, writer: int) -> None:
            os.write(writer, numbered(0, 100))
            os.write(writer, b"a line \xff with any bytes \n")
            os.close(writer)
            await until(lambda: len(received.lines) >= 101)
            await until(lambda: not logs.shipments)  # all was sent

        with_task(tmp_path, "syslog", options, body)
        assert syslog_texts(received) == [*numbered(0, 100).splitlines(), b"a line \xff with any bytes "]


@pytest.mark.parametrize("way", ["unix", "tcp"])
def test_rsyslog_reads_what_it_is_sent(tmp_path: Path, way: str) -> None:
    tree = debian_packages.unpacked("rsyslog", ["rsyslog", "libestr0", "libfastjson4"], with_libraries=False)
    modules = next(tree.glob("usr/lib/*/rsyslog"))
    listens = tmp_path / ("log" if way == "unix" else "port")
    tcp = f'address="127.0.0.1" port="0" listenPortFileName="{listens}"'
    inputs = {
        "unix": f'module(load="imuxsock" SysSock.Use="off") input(type="imuxsock" Socket="{listens}")',
        "tcp": f'module(load="imptcp") input(type="imptcp" {tcp})',
    }
    line = "%syslogfacility-text% %syslogseverity-text% %app-name% %procid%%msg%"
    (tmp_path / "rsyslog.conf").write_text(
        f'global(workDirectory="{tmp_path}")\n{inputs[way]}\n'
        f'template(name="line" type="string" string="{line}\\n")\n'
        f'action(type="omfile" file="{tmp_path}/received" template="line")\n'
    )
    command = [str(tree / "usr/sbin/rsyslogd"), "-n", "-f", f"{tmp_path}/rsyslog.conf", "-i", f"{tmp_path}/pid"]
    environment = {"LD_LIBRARY_PATH": str(modules.parent), "RSYSLOG_MODDIR": str(modules)}
    server = subprocess.Popen(command, env=environment)
    received = tmp_path / "received"

    def texts() -> list[str]:
        return received.read_text().splitlines() if received.exists() else []

    async def body(_: TaskLogs, writer: int) -> None:
        os.write(writer, numbered(0, 20))
        await until(lambda: len(texts()) >= 20)

    try:
        trio.run(until, lambda: listens.is_socket() or (listens.exists() and listens.read_text()))
        address = f"unix://{listens}" if way == "unix" else f"tcp://127.0.0.1:{int(listens.read_text())}"
        with_task(tmp_path, "syslog", {"syslog-address": address, "syslog-facility": "local3"}, body)
    finally:
        server.terminate()
        server.wait(60)
    wanted = re.compile(r"local3 info shop\.web\.1 task1 ?line (\d+)")
    found = [wanted.fullmatch(text) for text in texts()]
    assert [int(match[1]) for match in found if match] == list(range(20)), texts()[:3]


def test_journald_gets_fields_and_long_lines_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = str(tmp_path / "journal")
    monkeypatch.setattr(log_receivers, "JOURNAL_SOCKET", path)
    with datagram_server(path) as (_, received):

        async def body(_: TaskLogs, writer: int) -> None:
            os.write(writer, b"hello\n")
            await until(lambda: len(received.lines) == 1)

        with_task(tmp_path, "journald", {"tag": "{{.App}}/{{.ID}}"}, body)
        fields = dict(line.split(b"=", 1) for line in received.lines[0].splitlines())
        assert (fields[b"MESSAGE"], fields[b"PRIORITY"], fields[b"CONTAINER_NAME"]) == (b"hello", b"6", b"shop.web.1")
        assert (fields[b"SYSLOG_IDENTIFIER"], fields[b"IMAGE_NAME"]) == (b"shop/task1", b"web:1")


def test_what_a_datagram_does_not_hold_goes_as_a_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from proto.host_pb2 import LogLine
    from runtime.log_receiver import Receiver
    from runtime.log_sending import sender_to

    path = str(tmp_path / "journal")
    monkeypatch.setattr(log_receivers, "JOURNAL_SOCKET", path)
    words = dict.fromkeys(log_receivers.TAG_WORDS, "x")
    line = LogLine(unix_ns=1, text=b"first\n" + b"y" * 1_000_000)
    with datagram_server(path) as (_, received):

        async def main() -> None:
            sender = sender_to(Receiver("journald", {}, words), trio.CapacityLimiter(1))
            await sender.send([line])
            await until(lambda: received.lines)
            await sender.close()

        trio.run(main)
    head, _, rest = received.lines[0].partition(b"\n")
    assert head == b"MESSAGE"
    size = int.from_bytes(rest[:8], "little")
    assert rest[8 : 8 + size] == line.text
    assert rest[8 + size :].startswith(b"\nPRIORITY=6\n")


def test_fluentd_acknowledges_and_gets_again_what_it_did_not(tmp_path: Path) -> None:
    with stream_server("fluentd") as (port, received):
        received.refusing = 1

        async def body(logs: TaskLogs, writer: int) -> None:
            os.write(writer, numbered(0, 3000))
            await until(lambda: len(received.records) >= 3000)
            assert logs.shipments[0].failures >= 1

        with_task(tmp_path, "fluentd", {"fluentd-address": f"127.0.0.1:{port}", "tag": "app.{{.Service}}"}, body)
    assert [record["log"].encode() for record in received.records] == numbered(0, 3000).splitlines()
    first = received.records[0]
    assert (first["tag"], first["container_id"], first["source"]) == ("app.web", TASK, "stdout")
    assert first["time"] > 1_700_000_000_000_000_000


def test_otlp_collectors_get_records_again_after_they_were_busy(tmp_path: Path) -> None:
    with otlp_server() as (port, received):
        received.refusing = 2
        options = {"otlp-endpoint": f"http://127.0.0.1:{port}", "otlp-headers": "authorization=Bearer x"}

        async def body(_: TaskLogs, writer: int) -> None:
            os.write(writer, b"plain\n\xff bytes\n")
            await until(lambda: len(received.records) == 2)

        with_task(tmp_path, "otlp", options, body)
    assert [record["body"] for record in received.records] == ["plain", "\N{REPLACEMENT CHARACTER} bytes"]
    last = received.records[-1]
    assert (last["service.name"], last["severity"], last["token"]) == ("web", "INFO", "Bearer x")


def test_a_receiver_that_is_away_gets_all_from_the_next_daemon_and_the_log_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(log_shipping, "SAY_S", 0.0)
    listener = socket.socket()
    listener.bind(("127.0.0.1", 0))  # nobody listens there, and nobody else can
    port = listener.getsockname()[1]
    options = {"syslog-address": f"tcp://127.0.0.1:{port}", "syslog-facility": "16"}

    async def texts(logs: TaskLogs) -> list[bytes]:
        return [line.text async for line in logs.read(TASK, follow=False)]

    async def without(logs: TaskLogs, writer: int) -> None:
        os.write(writer, numbered(0, 50))
        with trio.fail_after(60):
            while not any(text.startswith(b"fairway: syslog at tcp://127.0.0.1") for text in await texts(logs)):
                await trio.sleep(0.02)
        assert logs.shipments[0].error
        os.close(writer)

    async def then(logs: TaskLogs, writer: int) -> None:
        os.write(writer, numbered(50, 60))
        os.close(writer)
        await until(lambda: len([text for text in syslog_texts(received) if text.startswith(b"line")]) >= 60)
        await until(lambda: logs.change_of(TASK) is None)
        await until(lambda: not logs.shipments)

    async def last(logs: TaskLogs, _: int) -> None:
        assert not logs.shipments

    with_task(tmp_path, "syslog", options, without)
    with stream_server("syslog", listener=listener) as (_, received):
        with_task(tmp_path, "syslog", options, then)
        told = [text for text in syslog_texts(received) if text.startswith(b"line")]
        assert told == numbered(0, 60).splitlines()
        with_task(tmp_path, "syslog", options, last)
