"""A pending task to a host: gates, image, volumes, and what it is assigned. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from daemon.errors import Refused
from daemon.orchestration.dependencies import waits_for
from daemon.orchestration.draft import Draft
from daemon.orchestration.external_parts import network_of
from daemon.orchestration.image_lookup import find_image, image_of_digest, missing_image, replaced_image
from daemon.orchestration.kinds import follows_hosts, host_of_slot, is_ordered
from daemon.orchestration.own_volumes import volume_of
from daemon.orchestration.quantities import names_text
from daemon.orchestration.scheduler_plan import Candidate
from daemon.orchestration.sharing import shared_words, shares, to_join
from daemon.orchestration.task_states import assigned, gone, named_volumes, serving
from proto import objects_pb2 as objects


def resolve_image(draft: Draft, service: objects.Service) -> objects.Service:
    """Notes the image's content once it is known; until then the service's tasks are pending."""
    if service.image_digest:
        return service
    image = find_image(draft.store, service.spec.container.image)
    if image is None:
        return service
    edited = draft.edit(service)
    edited.image_digest = image.manifest_digest
    return edited


def held_back(draft: Draft, service: objects.Service) -> str | None:
    """Which of its dependencies a service waits for, in words."""

    def find(name: str) -> objects.Service | None:
        key = (service.meta.tenant, service.app, name)
        return draft.store.table(objects.Service).unique("name", key)

    return waits_for(service, find, draft.tasks_of)


def candidate_of(
    draft: Draft, service: objects.Service, task: objects.Task, nodes: Mapping[str, objects.Node]
) -> Candidate | str:
    """What the scheduler is to find a host for; or why the task waits, whatever hosts there are."""
    reference = task.spec.container.image
    digest = task.image_digest or (service.image_digest if task.generation == service.generation else "")
    image = image_of_digest(draft.store, digest) if digest else find_image(draft.store, reference)
    if image is None:
        known = find_image(draft.store, reference) is not None
        return replaced_image(reference) if known else missing_image(reference)
    volumes = []
    for name in named_volumes(task.spec):
        try:
            volume = volume_of(draft, task, name, nodes)
        except Refused as refused:
            return refused.message
        if volume is None:
            return f"volume {name} does not exist: deploy app {task.app} again to make it"
        volumes.append(volume)
    reason = _waits_for_predecessor(draft, task, nodes)
    if reason:
        return reason
    node_id = ""
    if follows_hosts(task.spec):
        node_id = host_of_slot(task.slot, nodes)
        if not node_id:
            return "the host that it is for is not in the cluster any more"
    if task.move.node_id and not assigned(task):  # where it has got to, it may leave again
        node_id = task.move.node_id
        if node_id not in nodes:
            return "the host that it was to move to is not in the cluster any more"
    if not shares(task.spec):
        return Candidate(task, image, volumes, node_id)
    owner = to_join(draft, task, nodes)
    if isinstance(owner, str):
        return owner
    for volume in volumes:
        if volume.node_id not in ("", owner.node_id):
            where, here = (nodes[each].meta.name if each in nodes else "" for each in (volume.node_id, owner.node_id))
            return (
                f"volume {volume.meta.name} is on {where or 'a host that is gone'}, and {owner.meta.name}, whose "
                f"{shared_words(task.spec)} it shares, on {here}"
            )
    return Candidate(task, image, volumes, owner.node_id, owner.meta.id)


def assign(
    draft: Draft,
    candidate: Candidate,
    node: objects.Node,
    lease: objects.Lease,
    address: str,
    devices: Sequence[objects.AllottedDevice] = (),
) -> None:
    """The task is the node's from now on, at an address that is leased to it, and has these devices of it."""
    task = candidate.task
    for each in (lease, *draft.leases.devices(node, devices, task.meta.id)):
        draft.create(each)
    for volume in candidate.volumes:
        if not volume.node_id:
            draft.edit(volume).node_id = node.meta.id
    edited = draft.edit(task)
    edited.node_id = node.meta.id
    edited.address = address
    edited.devices.extend(devices)
    edited.shares_with = candidate.shares_with
    edited.image_digest = candidate.image.manifest_digest
    service = draft.get(objects.Service, task.service_id)
    edited.vip = service.vip if service is not None else ""
    del edited.networks[:]
    for name in task.spec.networks:
        network = network_of(draft.store, task.meta.tenant, task.app, task.spec, name)
        if network is not None:
            edited.networks.append(network.meta.id)
    edited.status.state = objects.TASK_STATE_ASSIGNED
    edited.status.message = ""


def _waits_for_predecessor(draft: Draft, task: objects.Task, nodes: Mapping[str, objects.Node]) -> str:
    """A slot's volumes are used by one of its tasks at a time, and a stateful slot has one task at a time. Where the
    earlier one is on a host that is down, the scheduler's own words about that host say more of a volume; a stateful
    slot waits for that host, whose task may be running still: nobody can know."""
    volumes, stateful = set(named_volumes(task.spec)), task.spec.HasField("stateful")
    if not volumes and not stateful:
        return ""
    tasks = draft.tasks_of(task.service_id)
    for other in tasks:
        if other.slot != task.slot or not assigned(other) or gone(other):
            continue
        shared = sorted(volumes.intersection(named_volumes(other.spec)))
        node = nodes.get(other.node_id)
        if node is None:
            continue
        down = node.state == objects.NODE_STATE_DOWN
        if stateful and down:
            return (
                f"waits for {node.meta.name}, which is down: the task of {task.meta.name} before it may run there "
                f"still, and two must not; if that host will not come back: fairway node rm --force {node.meta.name}"
            )
        if shared and not down:
            return (
                f"waits until the task of {task.meta.name} before it has ended on {node.meta.name}: both use "
                f"volume {names_text(shared, 'volumes')}"
            )
        if stateful:
            return f"waits until the task of {task.meta.name} before it has ended on {node.meta.name}"
    return _waits_for_lower_slots(task, tasks) if is_ordered(task.spec) else ""


def _waits_for_lower_slots(task: objects.Task, tasks: Sequence[objects.Task]) -> str:
    ready = {other.slot for other in tasks if serving(other)}
    missing = next((slot for slot in range(1, task.slot) if slot not in ready), None)
    return f"waits until {task.service}.{missing} is ready: its tasks start one after the other" if missing else ""
