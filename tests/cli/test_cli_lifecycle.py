"""Hooks and init tasks as a file says them."""

from __future__ import annotations

from pathlib import Path

from cli.compose import project
from proto import objects_pb2

TEXT = """
name: shop
services:
  web:
    image: web:1
    post_start:
      - {command: "./warm.sh 'all of it'", environment: {LEVEL: high, HOME_TOWN: }}
    pre_stop:
      - {command: [./drain, --now], user: "7:8", working_dir: /srv}
    x-fairway:
      init_tasks:
        - {image: "migrate:2", command: up, environment: [A=1]}
        - {command: [./check], user: root}
"""


def read(text: str) -> objects_pb2.ContainerSpec:
    return project.parse(text, "compose.yaml", Path("/nowhere"), {"HOME_TOWN": "Rome"}).spec.services["web"].container


def test_hooks_and_init_tasks_are_processes_with_what_is_said_of_them() -> None:
    container = read(TEXT)
    assert list(container.post_start) == [
        objects_pb2.Hook(command=["./warm.sh", "all of it"], environment={"LEVEL": "high", "HOME_TOWN": "Rome"})
    ]
    assert list(container.pre_stop) == [objects_pb2.Hook(command=["./drain", "--now"], user="7:8", working_dir="/srv")]
    first, second = container.init_tasks
    assert (first.image, list(first.command.values), dict(first.environment)) == ("migrate:2", ["up"], {"A": "1"})
    assert not first.HasField("entrypoint")
    assert (second.image, list(second.command.values), second.user) == ("", ["./check"], "root")
