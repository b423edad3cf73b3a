"""The apps of the churn, and what is done to them in each round.

Between rounds the cluster stands as `Workload.base` says: only then are inventories alike. The site stays and is
updated, the crowd is scaled up and down, guests come with networks, ports and volumes of their own and go.
"""

from __future__ import annotations

import contextlib
import random
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from lab.cluster import Lab
from proto import objects_pb2 as objects
from tests.churn.operator import Operator

ROOT = Path(__file__).parents[2]
STEP_SECONDS_MAX = 180.0
CROWD = ("a", "b", "c")
CROWD_BASE = 2
BRIEF = 4
KILLED = 3
WEB, ECHO, CALLERS = 4, 2, 2
CALL = "wget -q -T 2 -O /dev/null http://web:8000/"
# Sends every datagram back, for ever; busybox has nothing that does.
ANSWER = (
    "import socket; s = socket.socket(type=socket.SOCK_DGRAM); s.bind(('', 9000)); "
    "any(s.sendto(*s.recvfrom(100)) < 0 for _ in iter(int, 1))"
)
IMAGES = ("static-web", "shop-api")
SITE = """
name: {name}
x-task: &task
  image: static-web:1
  environment: {{ROUND: "{number}"}}
  stop_signal: SIGKILL
  stop_grace_period: 1s
services:
  web:
    <<: *task
    ports: ["{tcp}:8000"]
    networks: [front, back{extra}]
    deploy: {{replicas: {web}}}
  echo:
    <<: *task
    image: shop-api:1
    command: ["python3", "-c", "{answer}"]
    ports: ["{udp}:9000/udp"]
    networks: [front]
    deploy: {{replicas: {echo}}}
  caller:
    <<: *task
    command: ["sh", "-c", "while :; do {call}; sleep 2; done"]
    networks: [front]
    deploy: {{replicas: {callers}}}
  store:
    <<: *task
    command: ["sleep", "100000"]
    networks: [back]
    volumes: ["data:/data"]
networks: {{front: {{}}, back: {{}}{extra_network}}}
volumes: {{data: {{}}}}
"""
_SLEEPER = """
    image: static-web:1
    command: ["sleep", "{seconds}"]
    stop_signal: SIGKILL
    stop_grace_period: 1s
"""
CROWD_APP = (
    "name: {name}\nservices:\n"
    + "".join(f"  {each}:{_SLEEPER.format(seconds=100000)}    deploy: {{{{replicas: 2}}}}\n" for each in CROWD)
    + f"  brief:{_SLEEPER.format(seconds=2)}"
    + "    deploy: {{replicas: 0, restart_policy: {{condition: any, delay: 100ms, window: 1s}}}}\n"
)
GUEST = """
name: {name}
services:
  one:
    image: static-web:1
    stop_signal: SIGKILL
    stop_grace_period: 1s
    ports: ["{tcp}:8000"]
    networks: [own]
    volumes: ["kept:/kept"]
  two:
    image: static-web:1
    stop_signal: SIGKILL
    stop_grace_period: 1s
    command: ["sleep", "100000"]
    networks: [own, other]
    deploy: {{replicas: 2}}
networks: {{own: {{}}, other: {{internal: true}}}}
volumes: {{kept: {{}}}}
"""


@dataclass(frozen=True)
class Size:
    """How much of everything: `high` tasks of each service of the crowd, `waves` of it in a round."""

    high: int
    waves: int


class Workload:
    """The apps of one run, under names of its own. `port`: the first of three published ports."""

    def __init__(self, lab: Lab, operator: Operator, name: str, port: int, size: Size, choose: random.Random) -> None:
        self._lab = lab
        self._operator = operator
        self._site, self._crowd, self._name = f"{name}-site", f"{name}-crowd", name
        self._port = port
        self._size = size
        self._choose = choose
        self._round = 0
        self._guest = ""
        self.base = {
            f"{self._site}/web": WEB,
            f"{self._site}/echo": ECHO,
            f"{self._site}/caller": CALLERS,
            f"{self._site}/store": 1,
            f"{self._crowd}/brief": 0,
            **{f"{self._crowd}/{each}": CROWD_BASE for each in CROWD},
        }

    def begin(self) -> None:
        """Deploys what stays."""
        self._operator.deploy(CROWD_APP.format(name=self._crowd))
        self._deploy_site(extra=False)
        self.settle()

    @contextlib.contextmanager
    def deployed(self) -> Iterator[None]:
        """With the apps there and ready; they are removed afterwards."""
        self.begin()
        try:
            yield
        finally:
            self.end()

    def settle(self) -> None:
        """Returns when the cluster stands as in the beginning and nothing of what has ended is left on a host."""
        self._operator.wait_settled(self.base, STEP_SECONDS_MAX)

    def end(self) -> None:
        """Removes all of it."""
        apps = {self._site, self._crowd, *filter(None, [self._guest])}
        for app in apps:
            self._operator.remove(app)
        self._operator.wait_removed(apps, STEP_SECONDS_MAX)

    def round(self, enough: Callable[[], bool]) -> None:
        """One round of everything; ends after the wave in which it was `enough`. Then `settle`."""
        self._round += 1
        self._guest = f"{self._name}-guest-{self._round}"
        self._operator.deploy(GUEST.format(name=self._guest, tcp=self._port + 2))
        self._operator.scale(f"{self._crowd}/brief", BRIEF)
        self._deploy_site(extra=self._round % 2 == 1)
        for wave in range(self._size.waves):
            self._wave(wave)
            if enough():
                break
        self._operator.scale(f"{self._crowd}/brief", 0)
        self._operator.wait_ready({f"{self._guest}/one": 1, f"{self._guest}/two": 2}, STEP_SECONDS_MAX)
        self._operator.remove(self._guest)
        for each in CROWD:
            self._operator.scale(f"{self._crowd}/{each}", CROWD_BASE)
        self._operator.wait_removed({self._guest}, STEP_SECONDS_MAX)
        self._guest = ""
        if self._round % 2 == 1:
            self._deploy_site(extra=False)

    def _wave(self, number: int) -> None:
        """One service of the crowd goes up while the one before it goes down, and some tasks are killed."""
        up, down = (f"{self._crowd}/{CROWD[index % len(CROWD)]}" for index in (number, number - 1))
        self._operator.scale(up, self._size.high)
        self._operator.scale(down, CROWD_BASE)
        self._operator.wait_ready({up: self._size.high}, STEP_SECONDS_MAX)
        self._kill_some(up)

    def _kill_some(self, service: str) -> None:
        names = {node.meta.id: node.meta.name for node in self._operator.nodes()}
        running = [
            task
            for task in self._operator.tasks()
            if f"{task.app}/{task.service}" == service and task.status.state == objects.TASK_STATE_RUNNING
        ]
        for task in self._choose.sample(running, min(KILLED, len(running))):
            # It may have ended meanwhile.
            self._lab.run_in(names[task.node_id], ["kill", "-KILL", str(task.status.pid)], check=False)

    def _deploy_site(self, *, extra: bool) -> None:
        text = SITE.format(
            name=self._site,
            number=f"{self._round}{extra}",
            tcp=self._port,
            udp=self._port + 1,
            call=CALL,
            answer=ANSWER,
            web=WEB,
            echo=ECHO,
            callers=CALLERS,
            extra=", more" if extra else "",
            extra_network=", more: {}" if extra else "",
        )
        self._operator.deploy(text)

    @contextlib.contextmanager
    def traffic(self) -> Iterator[None]:
        """A client outside of the cluster, at the site's VIPs and published ports."""
        host = self._lab.address(self._lab.hosts()[0])
        targets = [
            f"tcp:{self._operator.vip(f'{self._site}/web')}:8000",
            f"udp:{self._operator.vip(f'{self._site}/echo')}:9000",
            f"tcp:{host}:{self._port}",
            f"udp:{host}:{self._port + 1}",
        ]
        command = [sys.executable, "-m", "tests.churn.traffic", *targets]
        process = self._lab.popen(self._lab.client(), command, cwd=ROOT, stdin=subprocess.DEVNULL)
        try:
            yield
            if process.poll() is not None:
                raise RuntimeError(f"the client ended by itself, with {process.returncode}")
        finally:
            process.terminate()
            process.wait(timeout=10)
