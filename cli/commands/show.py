"""`show`: one service in full."""

from __future__ import annotations

import argparse
import time
from collections.abc import Mapping

from cli import container_words, job_lines, output, words
from cli.commands.apps import print_tasks
from cli.commands.service import rollout_words
from cli.connection import CALL_SECONDS_MAX, connect
from cli.device_lines import asked_words
from cli.failure import EXIT_OK, CommandFailed
from cli.scaling_words import scaling_row
from proto import control_pb2, objects_pb2


def show(options: argparse.Namespace) -> int:
    cluster, name = connect(options), options.service
    request = control_pb2.ListServicesRequest(service=name)
    found = cluster.call(
        f"show {name}",
        lambda control: control.ListServices(request, timeout=CALL_SECONDS_MAX),
        repeatable=True,
    ).services
    if not found:
        raise CommandFailed(f"show {name}", "there is no such service; see 'fairway ls' and 'fairway ps'")
    if len(found) > 1:
        names = ", ".join(sorted(f"{view.service.app}/{view.service.meta.name}" for view in found))
        raise CommandFailed(f"show {name}", f"several services have this name; choose one of {names}")
    view = found[0]
    service = view.service
    tasks_request = control_pb2.ListTasksRequest(app=service.app, service=service.meta.name)
    reply = cluster.call(
        f"show {name}",
        lambda control: control.ListTasks(tasks_request, timeout=CALL_SECONDS_MAX),
        repeatable=True,
    )
    tasks = sorted(reply.tasks, key=lambda task: task.slot)
    if options.output == "json":
        output.print_json({**output.plain(view), "tasks": [output.plain(task) for task in tasks]})
        return EXIT_OK
    print("\n".join(f"{label + ':':<14}{text}" for label, text in describe(view) if text))
    if tasks:
        print()
        print_tasks(tasks, reply.nodes, wide=False)
    return EXIT_OK


def describe(view: control_pb2.ServiceView) -> list[tuple[str, str]]:
    """Labels and texts, in the order in which they are shown; empty ones are left out."""
    service, spec = view.service, view.service.spec
    container, resources = spec.container, spec.resources
    now = time.time_ns() // 1_000_000
    without_vip = spec.endpoint_mode == objects_pb2.ENDPOINT_MODE_DNSRR
    limits = [
        f"{words.cores(resources.cpu_limit_millis)} cores" if resources.cpu_limit_millis else "",
        f"{words.size(resources.memory_limit_bytes)} memory" if resources.memory_limit_bytes else "",
    ]
    reserved = [
        f"{words.cores(resources.cpu_reserved_millis)} cores" if resources.cpu_reserved_millis else "",
        f"{words.size(resources.memory_reserved_bytes)} memory" if resources.memory_reserved_bytes else "",
    ]
    rows = [
        ("Service", f"{service.app}/{service.meta.name}" + (" (removing)" if service.removing else "")),
        ("Id", service.meta.id),
        ("Image", container.image + (f" ({service.image_digest})" if service.image_digest else "")),
        ("Command", " ".join([*container.entrypoint.values, *container.command.values])),
        ("Tasks", f"{view.ready} ready, {view.running} running, {wanted_words(spec)}"),
        ("Scaling", scaling_row(service, now)),
        ("Schedule", job_lines.schedule_words(service) if spec.HasField("schedule") else ""),
        *(("Run", job_lines.run_words(run, now)) for run in service.runs),
        ("Revision", revision_words(service)),
        ("VIP", with_ipv6(service.vip, view) or ("none (dnsrr)" if without_vip else "")),
        ("Balancing", balance_words(spec.balance) if spec.HasField("balance") else ""),
        ("Floating", ", ".join(spec.floating_addresses)),
        ("Ports", ", ".join(port_words(port) for port in spec.ports)),
        ("Endpoints", ", ".join(_endpoint_words(endpoint, view) for endpoint in view.endpoints)),
        ("Networks", container_words.network_words(spec)),
        ("Mounts", ", ".join(mount_words(mount, view.volume_hosts) for mount in container.mounts)),
        ("Init tasks", "; ".join(map(container_words.init_words, container.init_tasks))),
        ("Hooks", container_words.hook_words(container)),
        ("Logging", container_words.logging_words(container)),
        ("Shares", container_words.share_words(container.shares)),
        ("Isolation", container_words.isolation_words(container.isolation)),
        ("Sharing", container_words.sharing_words(container.sharing)),
        ("Limits", ", ".join(filter(None, limits))),
        ("Reserved", ", ".join(filter(None, reserved))),
        ("Devices", asked_words(resources)),
        ("Constraints", ", ".join(spec.constraints)),
        ("Priority", precedence_words(spec.precedence)),
        ("Budget", budget_words(spec.disruption_budget)),
        ("Labels", ", ".join(f"{key}={value}" for key, value in sorted(service.meta.labels.items()))),
        ("Changed", f"{words.age(service.meta.updated_unix_ms, now)} ago"),
    ]
    return [*rows, *(("Pending", reason) for reason in view.pending_reasons)]


def wanted_words(spec: objects_pb2.ServiceSpec) -> str:
    """ "3 wanted", "one on each host", "to complete 5 times" """
    if spec.kind == objects_pb2.SERVICE_KIND_JOB:
        return f"to complete {words.plural(spec.replicas, 'time')}"
    if spec.kind == objects_pb2.SERVICE_KIND_GLOBAL_JOB:
        return "to complete once on each host"
    return "one on each host" if spec.kind == objects_pb2.SERVICE_KIND_GLOBAL else f"{spec.replicas} wanted"


def precedence_words(precedence: objects_pb2.Precedence) -> str:
    """ "100, stops no others, group ring"; empty where nothing is said."""
    parts = [
        str(precedence.priority) if precedence.priority else "",
        "stops no others" if precedence.never_preempts else "",
        f"group {precedence.group}" if precedence.group else "",
    ]
    return ", ".join(filter(None, parts))


def budget_words(budget: objects_pb2.DisruptionBudget) -> str:
    """ "max_unavailable 25%", as the file has it; empty where there is none."""
    bound = budget.WhichOneof("bound")
    if bound is None:
        return ""
    amount = getattr(budget, bound)
    word = "max_unavailable" if bound.startswith("unavailable") else "min_available"
    return f"{word} {amount / 10_000:g}%" if bound.endswith("_millionths") else f"{word} {amount}"


def revision_words(service: objects_pb2.Service) -> str:
    """ "3", "3, paused: paused by an operator" """
    state = rollout_words(service)
    said = "" if state == "present" else f", {state}"
    messages = [service.rollout.message, service.rollout.check_message] if said else []
    return f"{service.generation}{said}" + "".join(f": {message}" for message in filter(None, messages))


def port_words(port: objects_pb2.PortSpec) -> str:
    """ "8080 -> 80/tcp", "192.0.2.1:8080 -> 80/tcp (host)", or "80/tcp" where it is not published."""
    address = f"[{port.host_ip}]:" if ":" in port.host_ip else f"{port.host_ip}:" if port.host_ip else ""
    mode = " (host)" if port.mode == objects_pb2.PortSpec.MODE_HOST else ""
    return (f"{address}{port.published} -> " if port.published else "") + f"{port.target}/{port.protocol}{mode}"


def balance_words(balance: objects_pb2.Balance) -> str:
    """ "round-robin", "weighted (3 where node.labels.size == big), local first" """
    text = objects_pb2.BalancePolicy.Name(balance.policy).removeprefix("BALANCE_POLICY_").lower().replace("_", "-")
    weights = "; ".join(f"{each.weight} where {each.constraint}" for each in balance.weights)
    text += f" ({weights})" if weights else ""
    if balance.policy == objects_pb2.BALANCE_POLICY_LEAST_LOADED:
        text += " (CPU)" if balance.load == objects_pb2.LOAD_MEASURE_CPU else " (connections)"
    return text + (", local first" if balance.local_first else "")


def mount_words(mount: objects_pb2.Mount, hosts: Mapping[str, str]) -> str:
    """ "data at /var/lib/data (on host-2) (read-only)"; `hosts` says where volumes are."""
    kinds = {objects_pb2.Mount.KIND_TMPFS: "tmpfs", objects_pb2.Mount.KIND_BIND: mount.source}
    source = kinds.get(mount.kind, mount.source or "a new volume") + (f"/{mount.subpath}" if mount.subpath else "")
    place = (
        f" (on {hosts[mount.source]})" if mount.kind == objects_pb2.Mount.KIND_VOLUME and mount.source in hosts else ""
    )
    return f"{source} at {mount.target}{place}" + (" (read-only)" if mount.read_only else "")


def with_ipv6(address: str, view: control_pb2.ServiceView) -> str:
    """ "10.120.0.7 (fd12:3456:789a::a78:7)", or the address alone where there is no IPv6."""
    return f"{address} ({view.ipv6_addresses[address]})" if address in view.ipv6_addresses else address


def _endpoint_words(endpoint: objects_pb2.Endpoint, view: control_pb2.ServiceView) -> str:
    weight = f" (weight {endpoint.weight})" if endpoint.weight else ""
    return with_ipv6(endpoint.address, view) + weight + ("" if endpoint.ready else " (not ready)")
