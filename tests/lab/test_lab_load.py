"""The load generator sends on time, counts every request once, and says why one failed."""

from __future__ import annotations

import argparse
import contextlib
import http.server
import json
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator

import pytest
import trio

from lab import load
from lab.load import LoadPlan, longest_outage, parse_plan, percentile, run_load
from tests.lab.lab_fixtures import wait_until


@pytest.mark.parametrize(
    ("outcomes", "expected"),
    [
        ([], 0.0),
        ([(1.0, True), (2.0, True)], 0.0),
        ([(1.0, True), (2.0, False), (3.0, True)], 1.0),
        ([(3.0, True), (1.0, True), (2.0, False)], 1.0),  # any order
        ([(1.0, False), (2.0, False), (3.5, True), (4.0, False), (5.0, True)], 2.5),
        ([(1.0, True), (2.0, False), (6.0, False)], 4.0),  # never ended
        ([(1.0, False)], 0.0),
    ],
)
def test_an_outage_lasts_from_the_first_failed_request_to_the_next_good_one(
    outcomes: list[tuple[float, bool]], expected: float
) -> None:
    assert longest_outage(outcomes) == pytest.approx(expected)


def test_percentiles_are_values_that_occurred() -> None:
    values = [float(n) for n in range(1, 101)]
    assert percentile(values, 0.5) == 50.0
    assert percentile(values, 0.99) == 99.0
    assert percentile([7.0], 0.99) == 7.0


@pytest.mark.parametrize("url", ["https://x/", "x", "http://", "ftp://x"])
def test_other_urls_are_refused(url: str) -> None:
    with pytest.raises(ValueError, match="http://HOST"):
        parse_plan(argparse.Namespace(url=url, rate=1, seconds=1, timeout=1, keep_alive=False))


class _Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    connections: set[int]

    def do_GET(self) -> None:
        self.connections.add(self.client_address[1])
        status, body = (200, b"fine") if self.path == "/" else (500, b"broken")
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *arguments: object) -> None:
        pass


class _Server(http.server.ThreadingHTTPServer):
    request_queue_size = 1024  # where it has to wait for a processor, nobody is refused
    daemon_threads = True


@contextlib.contextmanager
def _server() -> Iterator[tuple[int, set[int]]]:
    """Port and the set of client ports seen."""
    seen: set[int] = set()
    handler = type("Handler", (_Handler,), {"connections": seen})
    server = _Server(("127.0.0.1", 0), handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        yield server.server_address[1], seen
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


@pytest.fixture
def patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """All requests are sent, however long this process has to wait for a processor."""
    monkeypatch.setattr(load, "_OVERTIME_SECONDS_MAX", 60.0)


@pytest.mark.parametrize(("keep_alive", "connections_max"), [(False, 100), (True, 75)])
def test_every_request_is_counted_and_connections_are_as_asked(
    patient: None, keep_alive: bool, connections_max: int
) -> None:
    with _server() as (port, seen):
        plan = LoadPlan("127.0.0.1", port, "/", 200, 0.5, timeout_seconds=20, keep_alive=keep_alive)
        result = trio.run(run_load, plan)
    assert (result.sent, result.ok, result.failed) == (100, 100, 0)
    assert result.answers == {"fine": 100}
    assert 0 < result.latency_ms_p50 <= result.latency_ms_p99 <= result.latency_ms_max
    assert len(seen) <= connections_max
    assert len(seen) == 100 or keep_alive


def test_reasons_of_failures_are_counted(patient: None) -> None:
    with _server() as (port, _):
        plan = LoadPlan("127.0.0.1", port, "/broken", rate_per_second=100, seconds=0.1, timeout_seconds=20)
        result = trio.run(run_load, plan)
    assert result.reasons == {"status 500": 10} and len(result.failures) == 10


def test_what_the_generator_sleeps_through_is_no_failure_and_no_burst() -> None:
    """Stopped as by a busy machine, for longer than an answer may take."""
    command = [sys.executable, "-m", "lab.load", "--rate", "100", "--seconds", "60", "--timeout", "1", "--json"]
    with _server() as (port, seen):
        process = subprocess.Popen([*command, f"http://127.0.0.1:{port}/"], stdout=subprocess.PIPE, text=True)
        try:
            wait_until(lambda: len(seen) > 20, "requests are sent")
            process.send_signal(signal.SIGSTOP)
            stopped = time.time()
            time.sleep(1.5)
            before, resumed, began = len(seen), time.time(), time.monotonic()
            process.send_signal(signal.SIGCONT)
            wait_until(lambda: len(seen) > before, "it goes on")
            time.sleep(0.1)
            burst = len(seen) - before - 100 * (time.monotonic() - began)
            process.terminate()
            result = json.loads(process.communicate(timeout=60)[0])
        finally:
            process.kill()
    # Of all others a server that waits for a processor would decide.
    failed = [each for each in result["failures"] if stopped - 0.5 < each["unix_seconds"] < resumed]
    assert not failed
    assert result["slept_seconds"] > 1
    assert burst < 65  # and not the 150 of that time


def test_a_refused_connection_is_a_failure_with_its_reason(patient: None) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # bound and not listening: refused
        plan = LoadPlan("127.0.0.1", taken.getsockname()[1], "/", rate_per_second=50, seconds=0.1)
        result = trio.run(run_load, plan)
    assert result.failed == 5
    assert "refused" in next(iter(result.reasons))


def test_a_server_that_does_not_answer_costs_the_timeout_and_delays_no_other_request(patient: None) -> None:
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen(64)
        plan = LoadPlan("127.0.0.1", silent.getsockname()[1], "/", rate_per_second=50, seconds=0.4, timeout_seconds=0.3)
        result = trio.run(run_load, plan)
    assert result.sent == result.failed == 20
    assert result.reasons == {"no answer in 0.3 s": 20}
    assert result.seconds - result.slept_seconds < 4.0  # and not 20 times that


def test_a_signal_ends_it_early_with_what_it_has() -> None:
    with _server() as (port, seen):
        command = [sys.executable, "-m", "lab.load", f"http://127.0.0.1:{port}/", "--rate", "100", "--timeout", "20"]
        with subprocess.Popen([*command, "--seconds", "60", "--json"], stdout=subprocess.PIPE) as sending:
            try:
                wait_until(lambda: len(seen) >= 20, "20 requests have come")
                sending.send_signal(signal.SIGINT)
                output, _ = sending.communicate(timeout=60)
            finally:
                sending.kill()
    result = json.loads(output)
    assert result["ok"] >= 20 and result["failed"] == 0
