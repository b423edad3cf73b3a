"""A metric in Prometheus' text: read, asked of a task of this machine, and what is said where that fails."""

from __future__ import annotations

import contextlib
import os
import socket
import threading
from collections.abc import Iterator

import pytest
import trio

from daemon.agent import scraping
from daemon.agent.prometheus_text import value_of
from daemon.agent.scraping import Scraping, Source
from daemon.agent.task_load import memory_bytes_of
from daemon.orchestration.scraped_metrics import key_of
from proto import objects_pb2 as objects
from proto.host_pb2 import ScrapedValue, TaskLoad

WAIT_S_MAX = 60.0
TEXT = """
# HELP queue_length Messages that wait.
# TYPE queue_length gauge
queue_length{queue="mail",host="a\\"b"} 3
queue_length{queue="mail",host="c"} 4.5 1395066363000
queue_length{queue="jobs"} 1e2
queue_length_max 9000
plain 7
broken NaN
http_requests_total{code="200"} 10 # {trace="x"} 1
"""


@pytest.mark.parametrize(
    ("name", "labels", "value"),
    [
        ("queue_length", {}, 107.5),
        ("queue_length", {"queue": "mail"}, 7.5),
        ("queue_length", {"host": 'a"b'}, 3),
        ("queue_length", {"queue": "none"}, None),
        ("plain", {}, 7),
        ("broken", {}, None),
        ("queue", {}, None),
        ("http_requests_total", {"code": "200"}, 10),
    ],
)
def test_samples_with_these_labels_are_added_up(name: str, labels: dict[str, str], value: float | None) -> None:
    assert value_of(TEXT, name, labels) == value


@pytest.fixture(autouse=True)
def patience(monkeypatch: pytest.MonkeyPatch) -> None:
    """What answers is a thread of this process, which may stand still for as long as a task is waited for."""
    monkeypatch.setattr(scraping, "ANSWER_S_MAX", WAIT_S_MAX)


@contextlib.contextmanager
def answering(*answers: bytes) -> Iterator[int]:
    """Answers each connection with the next of these, from a thread; its port."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.settimeout(WAIT_S_MAX)

        def serve() -> None:
            for answer in answers:
                connection, _ = listener.accept()
                connection.settimeout(WAIT_S_MAX)
                with connection, contextlib.suppress(ConnectionError):  # who has enough hangs up
                    connection.recv(65_536)
                    connection.sendall(answer)

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        yield int(listener.getsockname()[1])
        thread.join(WAIT_S_MAX)


def http(body: str, status: str = "200 OK") -> bytes:
    return f"HTTP/1.1 {status}\r\nContent-Length: {len(body)}\r\n\r\n{body}".encode()


def scrape(port: int, times: int, per_second: bool = False) -> list[ScrapedValue]:
    wanted = objects.ScrapedMetric(port=port, name="x", per_second=per_second)
    source = Source("a", os.getpid(), "127.0.0.1", [wanted, objects.ScrapedMetric(port=port, name="other")])
    loads: list[ScrapedValue] = []

    async def main() -> None:
        asked = Scraping()
        for _ in range(times):
            await asked.run_once([source])
            load = TaskLoad(task_id="a")
            asked.tell(load)
            loads.extend(value for value in load.scraped if value.metric == key_of(wanted))

    trio.run(main)
    return loads


def test_a_gauge_is_taken_as_it_is_and_a_counter_by_its_growth(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scraping, "INTERVAL_S", 0.0)
    with answering(http("x 5\n"), http("x 6\n")) as port:
        assert [load.value for load in scrape(port, 2)] == [5, 6]
    with answering(http("x 5\n"), http("x 1000\n"), http("x 2\n"), http("x 3\n")) as port:
        first, second, restarted, after = scrape(port, 4, per_second=True)
    assert not first.known and not restarted.known
    assert second.known and second.value > 0 and after.known


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (http("x 5", "404 Not Found"), "GET :PORT/metrics: HTTP 404"),
        (http("y 5"), "there is no number of x"),
        (b"nonsense\r\n\r\n", "not HTTP"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 9999999\r\n\r\n" + b"#" * 3_000_000, "longer than"),
    ],
)
def test_what_is_wrong_is_said(answer: bytes, words: str) -> None:
    with answering(answer) as port:
        (load,) = scrape(port, 1)
        assert not load.known and words.replace("PORT", str(port)) in load.problem


def test_the_memory_of_this_process_is_found() -> None:
    assert (memory_bytes_of(os.getpid()) or 0) > 0
    assert memory_bytes_of(2**22 + 1) is None
