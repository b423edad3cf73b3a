"""The demonstration's chapters, in the order in which they are told."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from lab import images
from lab.cluster import Lab
from lab.demo.observer import ClusterSight, Observer
from lab.demo.screen import Screen
from lab.host import program_folder
from lab.layout import LabError

NAME = "demo"
APP = "shop"
HOST_COUNT = 3
RATE_PER_SECOND = 50
REPLACED_SECONDS_MAX = 30.0
READY_SECONDS_MAX = 60.0
COMMAND_SECONDS_MAX = 120.0
STEADY_SECONDS = 2.0
LOAD_SECONDS_MAX = 120.0
_HERE = Path(__file__).parent
_IMAGES = ("shop-web", "shop-api", "redis")


class Story:
    """Makes `lab` and tells of it; `shortcomings` has what did not go as it should."""

    def __init__(self, screen: Screen) -> None:
        self.lab: Lab | None = None
        self.shortcomings: list[str] = []
        self._screen = screen
        self._archives: list[Path] = []

    def tell(self) -> None:
        """All chapters; LabError where one cannot go on."""
        self._screen.section("Images", "Built from this machine's Debian packages; nothing is pulled.")
        self._build_images()
        self._screen.section("Three hosts become one cluster", "Each host is a set of namespaces with its own daemons.")
        began = time.monotonic()
        self.lab = lab = Lab.make(
            NAME, HOST_COUNT, progress=lambda text: self._screen.done(text, time.monotonic() - began)
        )
        self._screen.section("Deploy a Compose file", f"{_HERE / 'compose.yaml'}: web asks api, api counts in redis.")
        self._deploy(lab)
        observer = Observer(lab.socket("host-1"), APP)
        try:
            sight, _ = observer.wait(ClusterSight.complete, "every task is ready", READY_SECONDS_MAX)
            self._show_tasks(sight)
            vips = observer.vips()
            self._screen.section(
                "Every service answers, on every host", "By its virtual address and its published port."
            )
            self._reach(lab, vips)
        finally:
            observer.close()
        redis_host = sight.of_service("redis")[0].host
        others = [host for host in lab.hosts() if host != redis_host]
        lab.client("visitor", via=[redis_host])
        observer = Observer(lab.socket(redis_host), APP)
        try:
            self._power_cut(lab, observer, others[0], vips["web"])
            self._drain(lab, observer, others[1], vips["web"], redis_host)
        finally:
            observer.close()

    # ---- chapters --------------------------------------------------------------------------------

    def _build_images(self) -> None:
        for name in _IMAGES:
            began = time.monotonic()
            path = images.build(name)
            self._archives.append(path)
            size = path.stat().st_size / 1e6
            self._screen.done(f"{images.RECIPES[name].settings.name} ({size:.0f} MB)", time.monotonic() - began)

    def _deploy(self, lab: Lab) -> None:
        for archive in self._archives:
            self._fairway(lab, "host-1", ["image", "load", str(archive)])
        self._fairway(lab, "host-1", ["deploy", str(_HERE / "compose.yaml")])

    def _show_tasks(self, sight: ClusterSight) -> None:
        rows = [("TASK", "HOST", "ADDRESS")]
        rows += sorted((task.name, task.host, task.address) for task in sight.tasks if task.ready)
        self._screen.table(rows)

    def _reach(self, lab: Lab, vips: dict[str, str]) -> None:
        rows = [["FROM", "web by VIP", "api by VIP", "redis by VIP", "web by port 8080 of each host"]]
        visits: list[int] = []
        for host in lab.hosts():
            urls = [
                f"http://{vips['web']}:8000/",
                f"http://{vips['api']}:8000/",
                f"redis://{vips['redis']}:6379",
            ]
            urls += [f"http://{lab.address(other)}:8080/" for other in lab.hosts()]
            command = [sys.executable, "-I", str(_HERE / "reach.py"), *urls]
            results: list[dict[str, Any]] = json.loads(lab.run_in(host, command).stdout)
            cells = [f"{'ok' if one['ok'] else 'FAILED'} {one['ms']:.0f} ms" for one in results]
            rows.append([host, *cells[:3], ", ".join(cells[3:])])
            for url, one in zip(urls, results, strict=True):
                if not one["ok"]:
                    self._fall_short(f"{url} did not answer on {host}: {one['text']}")
                elif url.startswith("http"):
                    visits.append(json.loads(one["text"])["visits"])
        self._screen.table(rows)
        if visits == sorted(set(visits)):
            self._screen.done(f"one Redis counted them all: visits {visits[0]} to {visits[-1]}")
        elif visits:
            self._fall_short(f"the visits were not counted one by one: {visits}")

    def _power_cut(self, lab: Lab, observer: Observer, victim: str, vip: str) -> None:
        self._screen.section(
            "A host dies", f"Its power is cut while a visitor sends {RATE_PER_SECOND} requests a second."
        )
        led = observer.leader() == victim
        lost = [task for task in observer.look().on_host(victim) if task.ready]
        load = self._start_load(lab, vip)
        try:
            time.sleep(STEADY_SECONDS)
            self._screen.command(["fairway", "lab", "kill", "--name", NAME, victim])
            began = time.monotonic()
            lab.kill(victim)
            self._screen.done(
                f"{victim} is gone at once{', and it led the cluster' if led else ''}; "
                f"lost: {', '.join(sorted(task.name for task in lost)) or 'no task'}"
            )
            observer.wait(lambda sight: not sight.hosts.get(victim, True), "the loss is seen", REPLACED_SECONDS_MAX)
            self._screen.done("the cluster has seen that it is down", time.monotonic() - began)
            sight, _ = observer.wait(
                lambda sight: sight.complete(without_host=victim),
                "every lost task is replaced",
                REPLACED_SECONDS_MAX,
            )
            seconds = time.monotonic() - began
            self._screen.done("every lost task runs again elsewhere and answers", seconds)
            if seconds > 8:
                self._fall_short(f"the replacement took {seconds:.1f} s; 8 s are promised")
            time.sleep(STEADY_SECONDS)
        finally:
            result = self._end_load(load)
        self._show_tasks(sight)
        self._show_load(result)
        lab.start(victim)
        _, seconds = observer.wait(lambda sight: sight.hosts.get(victim, False), f"{victim} is back", READY_SECONDS_MAX)
        self._screen.done(f"{victim} has power again and came back by itself", seconds)

    def _drain(self, lab: Lab, observer: Observer, host: str, vip: str, via: str) -> None:
        self._screen.section(
            "A host is drained", "For maintenance, say: each replacement is ready before the old task stops."
        )
        load = self._start_load(lab, vip)
        try:
            time.sleep(STEADY_SECONDS)
            self._fairway(lab, via, ["node", "drain", host])
            observer.wait(
                lambda sight: sight.complete(without_host=host) and not sight.on_host(host),
                f"{host} has no task left",
                READY_SECONDS_MAX,
            )
            time.sleep(STEADY_SECONDS)
        finally:
            result = self._end_load(load)
        self._show_load(result)
        if result["failed"]:
            self._fall_short(f"{result['failed']} requests failed during the drain; none should")
        else:
            self._screen.done(f"{host} is empty, and no request failed")
        self._fairway(lab, via, ["node", "activate", host])

    # ---- means -----------------------------------------------------------------------------------

    def _fairway(self, lab: Lab, host: str, words: Sequence[str]) -> None:
        """Runs the `fairway` command against the host's daemon and shows what it prints."""
        self._screen.command(["fairway", *words])
        environment = {**os.environ, "FAIRWAY_SOCKET": str(lab.socket(host))}
        with subprocess.Popen(
            [str(program_folder() / "fairway"), *words],
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        ) as process:
            assert process.stdout is not None
            try:
                for line in process.stdout:
                    self._screen.output(line.rstrip())
                status = process.wait(COMMAND_SECONDS_MAX)
            except BaseException:
                process.kill()
                raise
        if status != 0:
            raise LabError(f"`fairway {' '.join(words)}` ended with {status}; its words are above")

    def _start_load(self, lab: Lab, vip: str) -> subprocess.Popen[str]:
        return lab.popen(
            "visitor",
            [
                *(sys.executable, "-m", "lab.load", f"http://{vip}:8000/", "--json"),
                *("--rate", str(RATE_PER_SECOND), "--seconds", str(LOAD_SECONDS_MAX), "--timeout", "2"),
            ],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            cwd=_HERE.parent.parent,
        )

    def _end_load(self, load: subprocess.Popen[str]) -> dict[str, Any]:
        load.send_signal(signal.SIGINT)
        try:
            output, errors = load.communicate(timeout=30)
        except BaseException:
            load.kill()
            load.communicate()
            raise
        try:
            result: dict[str, Any] = json.loads(output)
        except ValueError:
            raise LabError(f"the load generator gave no result: {errors.strip()[-500:]}") from None
        return result

    def _show_load(self, result: dict[str, Any]) -> None:
        text = (
            f"{result['sent']} requests, {result['failed']} failed"
            f" (p50 {result['latency_ms_p50']:.0f} ms, p99 {result['latency_ms_p99']:.0f} ms)"
        )
        if result["failed"]:
            text += f"; those were sent within {result['failing_span_seconds']:.1f} s"
        self._screen.done(text)
        for reason, count in sorted(result["reasons"].items(), key=lambda item: -item[1])[:4]:
            self._screen.note(f"{count} x {reason}")

    def _fall_short(self, text: str) -> None:
        self.shortcomings.append(text)
        self._screen.bad(text)
