"""Clients that change workloads and hosts at random, beside each other, and note what the cluster said yes to."""

from __future__ import annotations

import random
import secrets
import threading
import time
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Protocol

import grpc
from google.protobuf.message import Message

from cli.compose import project
from proto import control_pb2 as control
from proto import objects_pb2 as objects
from tests.churn.operator import Operator, code_of
from tests.disorder import apps
from tests.disorder.model import AppModel, HostModel, Model, held

PAUSE_SECONDS = (0.0, 1.5)  # of one client between two changes
RETRY_SECONDS_MAX = 180.0
HOST_SHARE = 0.08  # of the changes
# Right, and not possible as things are: nothing was changed.
REFUSED = (
    grpc.StatusCode.FAILED_PRECONDITION,
    grpc.StatusCode.NOT_FOUND,
    grpc.StatusCode.ALREADY_EXISTS,
)
Steer = control.SteerRolloutRequest
STEERS = {
    "pause": Steer.PAUSE,
    "resume": Steer.RESUME,
    "promote": Steer.PROMOTE,
    "roll back": Steer.ROLL_BACK,
    "abort": Steer.ABORT,
}
# Change -> how often it is chosen, of an app that is there.
_WEIGHTS = {
    "deploy": 30,
    "scale": 18,
    "remove": 7,
    "remove service": 4,
    "pause": 5,
    "resume": 5,
    "promote": 6,
    "roll back": 8,
    "abort": 5,
    "trigger": 7,
    "run": 5,
}
_AVAILABILITIES = {
    "activate": objects.AVAILABILITY_ACTIVE,
    "cordon": objects.AVAILABILITY_CORDONED,
    "drain": objects.AVAILABILITY_DRAINING,
}


class Asked(Protocol):
    """What changes go to: an Operator, or planners without a cluster."""

    def call(self, method: str, request: Message) -> Any: ...

    def scale(self, service: str, replicas: int) -> None: ...

    def remove(self, app: str) -> None: ...


class Clients:
    """Threads that work until `changes` changes were made, or `stop`."""

    def __init__(self, model: Model, sockets: Sequence[Path], seed: int, count: int, changes: int) -> None:
        self.done: Counter[str] = Counter()
        self.refused: Counter[str] = Counter()
        self.errors: list[str] = []  # that should not be
        self._model = model
        self._changes = changes
        self._lock = threading.Lock()
        self._stopping = threading.Event()
        self._threads = [
            threading.Thread(target=self._work, args=(random.Random(f"{seed}-{number}"), sockets), daemon=True)
            for number in range(count)
        ]

    def start(self) -> None:
        for thread in self._threads:
            thread.start()

    @property
    def working(self) -> bool:
        return any(thread.is_alive() for thread in self._threads)

    def stop(self) -> None:
        """Returns when every client has ended its last change."""
        self._stopping.set()
        for thread in self._threads:
            thread.join()

    @property
    def count(self) -> int:
        with self._lock:
            return self.done.total()

    def _work(self, choose: random.Random, sockets: Sequence[Path]) -> None:
        operator = Operator(*choose.sample(list(sockets), len(sockets)), retry_seconds_max=RETRY_SECONDS_MAX)
        try:
            while self.count < self._changes and not self._stopping.wait(choose.uniform(*PAUSE_SECONDS)):
                if choose.random() < HOST_SHARE:
                    host = choose.choice(self._model.hosts)
                    self._try(host, *host_change(choose, operator, host))
                else:
                    app = choose.choice(self._model.apps)
                    with held(app) as free:
                        if free:
                            self._try(app, *app_change(choose, operator, self._model, app))
        except Exception as error:  # a thread would take it with it
            self.errors.append(f"a client ended: {error!r}")
            self._stopping.set()
        finally:
            operator.close()

    def _try(self, subject: AppModel | HostModel, what: str, change: Callable[[], None]) -> None:
        try:
            change()
        except grpc.RpcError as error:
            with self._lock:
                if code_of(error) in REFUSED:
                    self.refused[what] += 1
                else:
                    self.errors.append(f"{what} of {subject.name}: {code_of(error)}: {_details(error)}")
            return
        with self._lock:
            self.done[what] += 1


def deploy(operator: Asked, app: AppModel, services: apps.App) -> None:
    """Returns when the cluster said yes, and notes it."""
    text = apps.compose(app.name, services)
    spec = project.parse(text, "compose.yaml", Path.cwd(), {apps.SECRET: f"{app.name} secret"}).spec
    operator.call("DeployApp", control.DeployAppRequest(app=spec, request_id=secrets.token_hex(13)))
    app.deployed(services)


def change_host(operator: Asked, host: HostModel, availability: Any = None, bay: str | None = None) -> None:
    """As `deploy`. `bay`: empty takes the label away."""
    request = control.UpdateNodeRequest(node=host.name)
    request.availability = availability or objects.AVAILABILITY_UNSPECIFIED
    if bay:
        request.set_labels["bay"] = bay
    elif bay is not None and host.bay:
        request.remove_labels.append("bay")
    try:
        operator.call("UpdateNode", request)
    except grpc.RpcError as error:
        # Asked again after an answer that was lost: the label was taken away already.
        if code_of(error) is not grpc.StatusCode.NOT_FOUND or not request.remove_labels:
            raise
    host.availability = availability or host.availability
    host.bay = host.bay if bay is None else bay


def host_change(choose: random.Random, operator: Asked, host: HostModel) -> tuple[str, Callable[[], None]]:
    what = choose.choice(["label", "label", "cordon", "drain", "activate", "activate", "activate"])

    def change() -> None:
        with host.lock:
            if what == "label":
                change_host(operator, host, bay=choose.choice([*apps.BAYS, ""]))
            else:
                change_host(operator, host, _AVAILABILITIES[what])

    return what, change


def app_change(choose: random.Random, operator: Asked, model: Model, app: AppModel) -> tuple[str, Callable[[], None]]:
    version = model.new_version()
    if not app.services:
        return "new app", lambda: deploy(operator, app, apps.random_app(choose, version, app.port))
    what = choose.choices(list(_WEIGHTS), list(_WEIGHTS.values()))[0]
    if what == "remove service" and len(app.services) == 1:
        what = "deploy"  # with its last service an app goes and leaves its volumes
    service = choose.choice(sorted(app.services))
    replicas = choose.randint(0, apps.REPLICAS_MAX)
    name = f"{app.name}/{service}"

    def change() -> None:
        match what:
            case "deploy":
                deploy(operator, app, apps.next_version(choose, app.services, version, app.port))
            case "scale":
                operator.scale(name, replicas)
                app.scaled(service, replicas)
            case "remove":
                operator.remove(app.name)
                app.removed()
            case "remove service":
                _remove_service(operator, name)
                app.service_removed(service)
            case "trigger":
                request_id = secrets.token_hex(13)
                operator.call("TriggerJob", control.TriggerJobRequest(service=name, request_id=request_id))
            case "run":
                _run_once(operator, name)
            case _:
                request = Steer(service=name, action=STEERS[what], all_steps=choose.random() < 0.5)
                reply = operator.call("SteerRollout", request)
                if what in ("roll back", "abort"):
                    app.told(reply.service)

    return what, change


def _run_once(operator: Asked, service: str) -> None:
    """A task that runs once; its service is removed when it has ended, as `fairway run` does it."""
    request = control.RunOnceRequest(service=service, request_id=secrets.token_hex(13))
    request.command.values.extend(["sh", "-c", "sleep 0.2"])
    once = operator.call("RunOnce", request).service
    name = f"{once.app}/{once.meta.name}"
    deadline = time.monotonic() + 10.0
    while time.monotonic() < deadline:
        found = operator.call("ListServices", control.ListServicesRequest(service=name)).services
        if found and found[0].service.runs and found[0].service.runs[0].outcome:
            break
        time.sleep(0.2)
    _remove_service(operator, name)


def _remove_service(operator: Asked, name: str) -> None:
    """It was there: where it is not, an answer was lost."""
    try:
        operator.call("RemoveService", control.RemoveServiceRequest(service=name))
    except grpc.RpcError as error:
        if code_of(error) is not grpc.StatusCode.NOT_FOUND:
            raise


def _details(error: grpc.RpcError) -> str:
    details = getattr(error, "details", None)
    return str(details()) if callable(details) else str(error)
