"""Whether what there is is what was asked for: the store, and each host. Pure; everything found is said in words."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping

from proto import objects_pb2 as objects
from tests.disorder import apps
from tests.disorder.apps import Wanted, mark_of
from tests.disorder.sights import Sight
from tests.disorder.stored import Stored

Lease = objects.Lease
Rollout = objects.Rollout


def differences(
    wanted: Mapping[str, Wanted],
    versions: Mapping[str, Mapping[str, Wanted]],
    bays: Mapping[str, str],
    prefix: str,
    stored: Stored,
    sights: Mapping[str, Sight],
) -> list[str]:
    """`wanted`: APP/NAME -> what was asked for; `versions`: all that was ever asked for of it; `bays`: host -> its
    label; `prefix`: of the apps' names, others are let alone; `sights`: of all hosts, by name."""
    found = list(_parts(wanted, versions, prefix, stored))
    nodes = {node.meta.id: node for node in stored.all(objects.Node)}
    for service in _ours(stored.all(objects.Service), prefix):
        name = f"{service.app}/{service.meta.name}"
        if name in wanted:
            actual = _as_it_is(service, wanted[name], versions.get(name, {}))
            if isinstance(actual, str):
                found.append(f"{name}: {actual}")
                continue
            tasks = [task for task in stored.all(objects.Task) if task.service_id == service.meta.id]
            found += [f"{name}: {words}" for words in _tasks(service, actual, tasks, nodes, bays)]
    found += _leases(stored, nodes)
    for host, sight in sights.items():
        found += [f"{host}: {words}" for words in _host(host, sight, stored, nodes)]
    return found


def rolled_back(wanted: Mapping[str, Wanted], stored: Stored) -> list[str]:
    """Services that went back by themselves, for tasks of theirs failed."""
    names = {f"{service.app}/{service.meta.name}": service for service in stored.all(objects.Service)}
    return [name for name, each in wanted.items() if name in names and _version(names[name]) != each.version]


def _ours(services: list[objects.Service], prefix: str) -> list[objects.Service]:
    return [service for service in services if service.app.startswith(prefix)]


def _version(service: objects.Service) -> str:
    return mark_of(service.spec.container.environment)[1]


def _parts(
    wanted: Mapping[str, Wanted], versions: Mapping[str, Mapping[str, Wanted]], prefix: str, stored: Stored
) -> Iterator[str]:
    """Apps, services, networks and volumes that are there and should not be, or the other way round."""
    names = {name.partition("/")[0] for name in wanted}
    app_names = {app.meta.name for app in stored.all(objects.App) if app.meta.name.startswith(prefix)}
    yield from _both("app", names, app_names)
    services = {f"{service.app}/{service.meta.name}" for service in _ours(stored.all(objects.Service), prefix)}
    yield from _both("service", set(wanted), services)
    networks = {(each.app, each.meta.name) for each in stored.all(objects.Network) if each.app.startswith(prefix)}
    actual = {
        f"{service.app}/{service.meta.name}": versions.get(f"{service.app}/{service.meta.name}", {}).get(
            _version(service)
        )
        for service in stored.all(objects.Service)
    }  # a service that went back has the networks that it had
    needed = {(name.partition("/")[0], (actual.get(name) or each).network) for name, each in wanted.items()}
    yield from _both("network", {"/".join(each) for each in needed}, {"/".join(each) for each in networks})
    for volume in stored.all(objects.Volume):
        if volume.app.startswith(prefix) and (volume.removing or volume.app not in names):
            yield f"volume {volume.app}/{volume.meta.name} is there, though its app was removed with its volumes"
    for file in stored.all(objects.TaskFile):
        if file.app.startswith(prefix) and file.app not in names:
            yield f"secret or config {file.meta.name} is there, and app {file.app} is not"
    present = {service.meta.id for service in stored.all(objects.Service)}
    for task in stored.all(objects.Task):
        if task.service_id not in present:
            yield f"task {task.app}/{task.meta.name} ({task.meta.id}) is of no service"


def _both(what: str, wanted: set[str], there: set[str]) -> Iterator[str]:
    for name in sorted(wanted - there):
        yield f"{what} {name} was asked for and is not there"
    for name in sorted(there - wanted):
        yield f"{what} {name} is there and nobody asked for it"


def _as_it_is(service: objects.Service, wanted: Wanted, versions: Mapping[str, Wanted]) -> Wanted | str:
    """What the service is to be: as it was asked for, or an earlier version where it went back by itself, as it was
    asked to; or, in words, what is wrong."""
    if service.removing:
        return "is being removed"
    version = _version(service)
    if service.spec.replicas != wanted.replicas and wanted.kind not in (apps.GLOBAL, apps.GLOBAL_JOB):
        return f"has {service.spec.replicas} replicas in its spec, and {wanted.replicas} were asked for"
    if version == wanted.version:
        return wanted
    failed = any(_is_revision(each, wanted.version) and each.failed for each in service.revisions)
    allowed = ("failure_action", "rollback") in wanted.update
    if not allowed or not failed or version not in versions:
        return f"is at version {version}, and {wanted.version} was asked for"
    return versions[version]


def _is_revision(revision: objects.Revision, version: str) -> bool:
    return mark_of(revision.spec.container.environment)[1] == version


def _tasks(
    service: objects.Service,
    wanted: Wanted,
    tasks: list[objects.Task],
    nodes: Mapping[str, objects.Node],
    bays: Mapping[str, str],
) -> Iterator[str]:
    if wanted.is_job:
        yield from _runs(service, wanted, tasks)
        return
    if service.rollout.generation == service.generation and service.rollout.state != Rollout.STATE_DONE:
        yield f"its rollout is {Rollout.State.Name(service.rollout.state)[6:].lower()}: {service.rollout.message}"
    kept = [task for task in tasks if task.desired == objects.DESIRED_STATE_RUNNING]
    for task in tasks:
        if task not in kept and task.address:
            yield f"task {task.meta.id} is to stop and is there still"
    slots = Counter(task.slot for task in kept)
    fit = {node.network.ordinal for node in nodes.values() if wanted.bay in ("", bays.get(node.meta.name, ""))}
    expected = fit if wanted.kind == apps.GLOBAL else set(range(1, service.spec.replicas + 1))
    if set(slots) != expected or max(slots.values(), default=0) > 1:
        yield f"has tasks for slots {sorted(slots.elements())}, and is to have one for each of {sorted(expected)}"
    running = [task for task in kept if task.node_id]
    for task in running:
        if not task.status.ready or task.status.state != objects.TASK_STATE_RUNNING:
            state = objects.TaskState.Name(task.status.state)[11:].lower()
            yield f"task {task.meta.name} ({task.meta.id}) is {state} and not ready: {task.status.message}"
        if _version_of(task) != wanted.version:
            yield f"task {task.meta.name} ({task.meta.id}) is of version {_version_of(task)}"
    hosts = Counter(task.node_id for task in running)
    most = 1 if wanted.host_mode else wanted.per_node_max
    if most and max(hosts.values(), default=0) > most:
        yield f"has {max(hosts.values())} tasks on one host, and at most {most} may be there"
    room = sum(max(most - hosts[node], 0) for node in nodes if nodes[node].network.ordinal in fit) if most else len(fit)
    for task in kept:
        if not task.node_id and room:
            yield f"task {task.meta.name} has no host, though one would do: {task.status.message}"


def _version_of(task: objects.Task) -> str:
    return mark_of(task.spec.container.environment)[1]


def _runs(service: objects.Service, wanted: Wanted, tasks: list[objects.Task]) -> Iterator[str]:
    for task in tasks:
        if task.address:
            yield f"task {task.meta.id} of run {task.run} is there still"
    going = [run.number for run in service.runs if run.outcome == objects.JobRun.OUTCOME_NONE]
    if going:
        yield f"runs {going} go on"
    if not service.runs:
        if not wanted.scheduled:
            yield "never ran"
        return
    last = service.runs[-1]
    if last.generation != service.generation and not wanted.scheduled:
        yield "did not run since it was changed"
    outcome = objects.JobRun.OUTCOME_FAILED if wanted.breaks else objects.JobRun.OUTCOME_SUCCEEDED
    if last.generation != service.generation or going:
        return
    if last.outcome != outcome:
        yield f"its last run {_outcome(last.outcome)}, and was to be {_outcome(outcome)}: {last.message}"
    if wanted.kind == apps.JOB and not wanted.breaks and last.succeeded != last.wanted:
        yield f"{last.succeeded} of {last.wanted} tasks of its last run succeeded"


def _outcome(outcome: objects.JobRun.Outcome.ValueType) -> str:
    return objects.JobRun.Outcome.Name(outcome)[8:].lower()


def _leases(stored: Stored, nodes: Mapping[str, objects.Node]) -> Iterator[str]:
    """Each has a holder that has it, and who has something has a lease for it."""
    held: dict[int, set[tuple[str, str]]] = defaultdict(set)
    for lease in stored.all(Lease):
        held[lease.kind].add((lease.meta.name.partition("/")[2].removeprefix("node/"), lease.holder_id))
    services, networks = stored.all(objects.Service), stored.all(objects.Network)
    needed = {
        Lease.KIND_TASK_ADDRESS: {(task.address, task.meta.id) for task in stored.all(objects.Task) if task.address},
        Lease.KIND_VIP: {(service.vip, service.meta.id) for service in services if service.vip},
        Lease.KIND_HOST_BLOCK: {(node.network.block, node.meta.id) for node in nodes.values()},
        Lease.KIND_NODE_ORDINAL: {(str(node.network.ordinal), node.meta.id) for node in nodes.values()},
        Lease.KIND_NETWORK_ORDINAL: {(f"network/{each.ordinal}", each.meta.id) for each in networks},
    }
    for kind, those in needed.items():
        word = Lease.Kind.Name(kind)[5:].replace("_", " ").lower()
        for name, holder in sorted(held[kind] - those):
            yield f"lease of {word} {name} is held by {holder}, which does not have it"
        for name, holder in sorted(those - held[kind]):
            yield f"{holder} has {word} {name} without a lease"
    present = {service.meta.id for service in services} | {task.meta.id for task in stored.all(objects.Task)}
    present |= nodes.keys()
    for name, holder in sorted(held[Lease.KIND_PUBLISHED_PORT]):
        if holder not in present:
            yield f"lease of port {name} is held by {holder}, which is not there"
    addresses = Counter(task.address for task in stored.all(objects.Task) if task.address)
    for address, count in addresses.items():
        if count > 1:
            yield f"address {address} is of {count} tasks"


def _host(host: str, sight: Sight, stored: Stored, nodes: Mapping[str, objects.Node]) -> Iterator[str]:
    node = next(node for node in nodes.values() if node.meta.name == host)
    mine = {task.meta.id for task in stored.all(objects.Task) if task.node_id == node.meta.id and task.address}
    for kind, ids in sight.tasks.items():
        for task in sorted(ids - mine):
            yield f"{kind}: {task} is there without a task"
        # Only some tasks have mounts by their name; the rest is there of each.
        for task in sorted(mine - ids):
            yield f"{kind}: task {task} has none"
    if sight.veths != len(mine):
        yield f"{sight.veths} veth pairs, and {len(mine)} tasks"
    yield from sight.strangers
    volumes = {volume.meta.id for volume in stored.all(objects.Volume) if volume.node_id == node.meta.id}
    for volume in sorted(sight.volumes - volumes):
        yield f"data of volume {volume} is there, which nobody has"
    yield from _traffic(sight, stored)


def _traffic(sight: Sight, stored: Stored) -> Iterator[str]:
    """What balancers and names lead to are the ready tasks."""
    ready: dict[str, set[str]] = defaultdict(set)
    for task in stored.all(objects.Task):
        if task.status.ready and task.desired == objects.DESIRED_STATE_RUNNING and task.address:
            ready[task.service_id].add(task.address)
    vips = {service.vip: service for service in stored.all(objects.Service) if service.vip}
    for vip in sorted(sight.backends.keys() - vips.keys()):
        yield f"the balancer knows {vip}, which no service has"
    for vip, service in sorted(vips.items()):
        there, due = sight.backends.get(vip, set()), ready[service.meta.id]
        nearest = service.spec.balance.local_first
        if (there - due) if nearest else (there != due) or (due and not there):
            yield f"the balancer sends {service.app}/{service.meta.name} to {sorted(there)}, ready are {sorted(due)}"
    domains = [cluster.network.dns_domain for cluster in stored.all(objects.Cluster)]
    services = {
        ".".join((service.meta.name, service.app, *domains)): service for service in stored.all(objects.Service)
    }
    for name, there in sorted(sight.names.items()):
        plain = name.removeprefix("tasks.")
        known = services.get(plain)
        due = ready[known.meta.id] if known is not None else set()
        if plain == name and known is not None and known.vip:
            due = {known.vip}
        if there != due:
            yield f"name {name} is {sorted(there)}, and should be {sorted(due)}"
