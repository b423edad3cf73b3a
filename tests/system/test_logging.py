"""Logs of tasks: their fields, their bounds, where they are sent, and that nobody's absence loses a line."""

from __future__ import annotations

import re
import sys
from collections.abc import Callable

from tests.system.cluster import Cluster, run_in_task

Deploy = Callable[[str], str]
WRITERS = """
services:
  said:
    image: static-web:1
    command:
      - sh
      - -c
      - |
        echo '{"level": "error", "n": 1}'; echo '{"level": "info", "n": 2}'; echo plain
        until [ -f /tmp/go ]; do sleep 0.1; done
        sleep 0.3; seq 1 300
    init: false
    logging:
      driver: syslog
      options: {syslog-address: "unix:///run/test-of-logging", syslog-format: rfc5424, tag: "{{.Service}}"}
    deploy: {placement: {constraints: [node.hostname == host-2]}, restart_policy: {condition: none}}
  loud:
    image: static-web:1
    command: ["seq", "1", "5000"]
    init: false
    logging: {options: {rate-lines: 100}}
    deploy: {restart_policy: {condition: none}}
"""
RECEIVER = """
import socket, sys
channel = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
channel.bind("/run/test-of-logging")
while True:
    sys.stdout.buffer.write(channel.recv(65536) + b"\\n")
    sys.stdout.flush()
"""


def test_lines_are_filtered_bounded_and_reach_a_receiver_though_the_daemon_was_killed(
    cluster: Cluster, deployed: Deploy
) -> None:
    app = deployed(WRITERS)
    said = f"{app}/said.1"
    cluster.wait(lambda: "plain" in cluster.fairway("logs", said).stdout, "the task has written")
    assert cluster.fairway("logs", said, "--where", "level=error", "--fields", "n").stdout == "n=1\n"
    assert cluster.fairway("logs", said, "--where", "n!=2").stdout.count("\n") == 2

    def loud() -> tuple[int, int]:
        """Lines that are kept, and left out as the notes tell."""
        done = cluster.fairway("logs", f"{app}/loud.1")
        return done.stdout.count("\n"), sum(map(int, re.findall(r"fairway: (\d+) lines .* left out", done.stderr)))

    cluster.wait(lambda: sum(loud()) == 5000, "it is said how much was left out")
    assert 500 <= loud()[0] < 5000

    run_in_task(cluster, said, "touch", "/tmp/go")
    cluster.lab.restart_daemon("host-2")  # and the task writes its last words, and ends
    numbers = [str(number) for number in range(1, 301)]
    cluster.wait(
        lambda: (
            [line for line in cluster.fairway("logs", said, ok=False).stdout.splitlines() if line.isdigit()] == numbers
        ),
        "the last words are there",
    )
    path = cluster.folder / "received"
    with path.open("w") as file:
        receiver = cluster.lab.popen("host-2", [sys.executable, "-c", RECEIVER], stdout=file)
    try:
        cluster.wait(lambda: path.read_text().endswith(" 300\n"), "the last line is received")
        texts: list[str] = []
        for line in path.read_text().splitlines():
            head, _, text = line.partition(" - - ")
            assert head.split()[3] == "said", head
            texts.append(text)
        assert [text for text in texts if not text.startswith("fairway: ")] == [
            '{"level": "error", "n": 1}',
            '{"level": "info", "n": 2}',
            "plain",
            *numbers,
        ]
    finally:
        receiver.kill()
        receiver.wait()
        path.unlink()
        cluster.lab.run_in("host-2", ["rm", "-f", "/run/test-of-logging"])
    cluster.make_whole()
