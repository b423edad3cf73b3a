"""What is wrong with the cluster, from its state and what its hosts say of themselves. Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from statistics import median

from daemon.doctor.conditions_plan import PATH_KINDS
from daemon.doctor.host_findings_plan import error, note, several, warning
from daemon.garbage.garbage_plan import CONDITION as DISK_USE
from daemon.host_conditions import BARRING, CPU
from daemon.orchestration.kinds import is_job, serving_wanted
from proto import objects_pb2 as objects
from proto.control_pb2 import RaftStatusReply
from proto.doctor_pb2 import ExamineReply, Finding

CLOCK_SKEW_MS_WARN, CLOCK_SKEW_MS_ERROR = 500, 5_000
CA_LEFT_MS_WARN = 90 * 86_400_000
SERVICES_MAX = 20
CLUSTER = "cluster"
CHECKS = (
    "quorum",
    "voters",
    "hosts",
    "versions",
    "clocks",
    "certificate authority",
    "services",
    "published ports",
    "encryption",
    "conditions",
)


@dataclass(frozen=True)
class Answer:
    """A host's own words, and how far its clock is from that of who asked."""

    reply: ExamineReply
    clock_offset_ms: float = 0.0
    clock_error_ms: float = 0.0  # the offset may be wrong by so much


@dataclass(frozen=True)
class ClusterFacts:
    """`answers`: node id -> answer, or why there is none."""

    nodes: Sequence[objects.Node]
    answers: Mapping[str, Answer | str]
    raft: RaftStatusReply
    services: Sequence[objects.Service]
    tasks: Sequence[objects.Task]
    now_unix_ms: int
    ca_left_ms: int | None = None
    floating_held: Collection[str] = ()  # floating addresses that a host holds


def cluster_findings(facts: ClusterFacts) -> list[Finding]:
    """All findings, those of hosts included, the worst first, each with `where`."""
    names = {node.meta.id: node.meta.name for node in facts.nodes}
    found = [
        *_consensus(facts),
        *_hosts(facts),
        *_versions(facts, names),
        *_clocks(facts, names),
        *_services(facts),
        *_published(facts),
        *_encryption(facts),
    ]
    for finding in found:
        finding.where = finding.where or CLUSTER
    for node_id, answer in facts.answers.items():
        if isinstance(answer, Answer):
            for own in answer.reply.findings:
                finding = Finding()
                finding.CopyFrom(own)
                finding.where = names.get(node_id, node_id)
                found.append(finding)
    found += _conditions(facts, names)
    return in_order(found)


def in_order(findings: Iterable[Finding]) -> list[Finding]:
    """The worst first, then by place."""
    return sorted(findings, key=lambda each: (-each.level, each.where, each.check, each.message))


def _consensus(facts: ClusterFacts) -> list[Finding]:
    raft = facts.raft
    found = []
    if not raft.quorum:
        found.append(
            error(
                "quorum",
                raft.summary or "no leader",
                "start the voters that are down, or mend the network between them; `fairway raft status` lists them. "
                "Containers go on meanwhile. Only when a majority is lost for good: `fairway recover`",
            )
        )
    elif raft.voter_count > 1 and raft.voters_up - (raft.voter_count // 2 + 1) < 1:
        found.append(
            warning("voters", raft.summary, "bring the voters back that are down, or add a host of role voter")
        )
    elif raft.voter_count == 1 and len(facts.nodes) > 1:
        found.append(warning("voters", raft.summary, "add hosts of role voter until there are three"))
    elif raft.voter_count == 1:
        found.append(note("voters", raft.summary, "a cluster of three hosts survives the loss of one"))
    found += [
        warning("voters", f"{member.name}: {member.problem}", "see `fairway raft status`")
        for member in raft.members
        if member.voter and member.problem and isinstance(facts.answers.get(member.node_id), Answer)
    ]
    if facts.ca_left_ms is not None and facts.ca_left_ms < CA_LEFT_MS_WARN:
        days = facts.ca_left_ms / 86_400_000
        found.append(
            warning(
                "certificate authority",
                f"the cluster's own certificate expires in {days:.0f} days; nothing works after that",
                "plan a new cluster, or ask for its rotation",
            )
        )
    return found


def _hosts(facts: ClusterFacts) -> list[Finding]:
    found = []
    for node in facts.nodes:
        answer = facts.answers.get(node.meta.id)
        finding: Finding | None = None
        if node.state == objects.NODE_STATE_DOWN:
            silent_s = max(0, facts.now_unix_ms - node.state_since_unix_ms) // 1000
            finding = error(
                "hosts",
                f"the host is down since {silent_s} s: {node.state_message or 'not heard of'}; its tasks run elsewhere",
                "look at its power, its network and `systemctl status fairwayd`; "
                "if it is lost: `fairway node rm --force`",
            )
        elif node.state == objects.NODE_STATE_SILENT:
            finding = error(
                "hosts",
                "the host answers, its fairwayd does not: its tasks run on, and are replaced if it stays away",
                "look at `systemctl status fairwayd` and `journalctl -u fairwayd` there",
            )
        elif isinstance(answer, str):
            finding = error(
                "hosts",
                f"the host {answer}",
                f"look at its network (`ping {node.address}`), its load and `journalctl -u fairwayd`",
            )
        elif node.state == objects.NODE_STATE_UNSPECIFIED:
            finding = warning(
                "hosts", "the host joined and was never heard of", "look at `journalctl -u fairwayd` there"
            )
        elif node.availability in (objects.AVAILABILITY_CORDONED, objects.AVAILABILITY_DRAINING):
            word = "cordoned" if node.availability == objects.AVAILABILITY_CORDONED else "draining"
            finding = note("hosts", f"the host is {word}: it gets no new tasks", "`fairway node activate` ends that")
        if finding is not None:
            finding.where = node.meta.name
            found.append(finding)
    return found


def _versions(facts: ClusterFacts, names: Mapping[str, str]) -> list[Finding]:
    versions: dict[str, list[str]] = {}
    for node in facts.nodes:
        answer = facts.answers.get(node.meta.id)
        version = answer.reply.fairway_version if isinstance(answer, Answer) else node.description.fairway_version
        if version:
            versions.setdefault(version, []).append(names[node.meta.id])
    if len(versions) < 2:
        return []
    words = "; ".join(f"{version}: {several(sorted(hosts))}" for version, hosts in sorted(versions.items()))
    return [
        warning("versions", f"hosts run different versions of Fairway ({words})", "finish the upgrade: docs/upgrade.md")
    ]


def _clocks(facts: ClusterFacts, names: Mapping[str, str]) -> list[Finding]:
    """Each host's clock beside the median of all: it takes a majority to say who is wrong."""
    answers = {node_id: each for node_id, each in facts.answers.items() if isinstance(each, Answer)}
    if len(answers) < 2:
        return []
    middle = median(answer.clock_offset_ms for answer in answers.values())
    found = []
    for node_id, answer in answers.items():
        skew_ms = answer.clock_offset_ms - middle
        certain_ms = abs(skew_ms) - answer.clock_error_ms
        if certain_ms < CLOCK_SKEW_MS_WARN:
            continue
        make = error if certain_ms >= CLOCK_SKEW_MS_ERROR else warning
        direction = "ahead of" if skew_ms > 0 else "behind"
        finding = make(
            "clocks",
            f"the clock is {abs(skew_ms) / 1000:.1f} s {direction} that of the other hosts",
            "run chrony or systemd-timesyncd there; certificates may be refused when clocks differ by much",
        )
        finding.where = names.get(node_id, node_id)
        found.append(finding)
    return found


def _services(facts: ClusterFacts) -> list[Finding]:
    """Services with fewer ready tasks than wanted, with why."""
    ready: Counter[str] = Counter()
    reasons: dict[str, set[str]] = {}
    by_service: dict[str, list[objects.Task]] = {}
    for task in facts.tasks:
        by_service.setdefault(task.service_id, []).append(task)
        if task.desired != objects.DESIRED_STATE_RUNNING:
            continue
        if task.status.ready:
            ready[task.service_id] += 1
            continue
        reason = task.status.message
        if task.status.health == objects.HEALTH_UNHEALTHY:
            reason = f"its health check fails{': ' + reason if reason else ''}"
        elif task.status.state == objects.TASK_STATE_RUNNING and not reason:
            reason = "it runs and is not ready: nothing listens on a port that the service declares"
        reasons.setdefault(task.service_id, set()).add(reason or objects.TaskState.Name(task.status.state)[11:].lower())
    found = []
    for service in facts.services:
        wanted, have = serving_wanted(service, by_service.get(service.meta.id, ())), ready[service.meta.id]
        if is_job(service.spec) and service.runs and service.runs[-1].outcome == objects.JobRun.OUTCOME_FAILED:
            found.append(_failed_run(service, service.runs[-1]))
        if service.removing or have >= wanted:
            continue
        make = error if have == 0 else warning
        why = several(sorted(reasons.get(service.meta.id, {"no task was made yet"})))
        name = f"{service.app}/{service.meta.name}"
        found.append(
            make(
                "services",
                f"{name}: {have} of {wanted} tasks are ready ({why})",
                f"`fairway ps {name}` and `fairway logs {name}` say more",
            )
        )
    return found[:SERVICES_MAX]


def _failed_run(service: objects.Service, run: objects.JobRun) -> Finding:
    name = f"{service.app}/{service.meta.name}"
    return warning(
        "services",
        f"job {name}: its last run, {run.number}, has failed ({run.message})",
        f"`fairway ps -a {name}` and `fairway logs {name}` say more; `fairway trigger {name}` runs it again",
    )


def _published(facts: ClusterFacts) -> list[Finding]:
    """Ports that are published at an address that no host has, floating addresses that nobody holds."""
    known = {address for node in facts.nodes for address in (*node.description.addresses, node.address)}
    told = all(node.description.addresses for node in facts.nodes if node.state == objects.NODE_STATE_READY)
    floating = {address for service in facts.services for address in service.spec.floating_addresses}
    found = []
    for service in facts.services:
        name = f"{service.app}/{service.meta.name}"
        for port in service.spec.ports:
            lost = port.host_ip and port.host_ip not in known | floating and not port.host_ip.startswith("127.")
            if told and port.published and lost and port.host_ip != "::1":
                found.append(
                    error(
                        "published ports",
                        f"{name} publishes port {port.published} at {port.host_ip} only, which no host has",
                        "correct the address in the Compose file, or give it to a host",
                    )
                )
        found += [
            warning(
                "floating addresses",
                f"no host holds {address}, the floating address of {name}",
                "a host must be up, with an interface whose network has this address",
            )
            for address in service.spec.floating_addresses
            if not service.removing and address not in facts.floating_held
        ]
    return found[:SERVICES_MAX]


def _encryption(facts: ClusterFacts) -> list[Finding]:
    """Hosts that cannot encrypt in a cluster that does."""
    found = []
    for node in facts.nodes:
        if node.network.encryption_problem:
            finding = error(
                "encryption",
                f"the host cannot encrypt: {node.network.encryption_problem}; it gets no tasks",
                "install the kernel's WireGuard, or the package wireguard-go; see `fairway net encryption status`",
            )
            finding.where = node.meta.name
            found.append(finding)
    return found


# By the kinds of conditions.
_PAGES = {
    "device specification": "docs/workloads.md",
    CPU: "docs/operations.md",
    DISK_USE: "docs/operations.md",
    **dict.fromkeys(BARRING, "docs/operations.md"),
}


def _conditions(facts: ClusterFacts, names: Mapping[str, str]) -> list[Finding]:
    """What hosts reported to the cluster, of those that did not just say it themselves."""
    down = {node.meta.id for node in facts.nodes if node.state == objects.NODE_STATE_DOWN}
    found = []
    for node in facts.nodes:
        answer = facts.answers.get(node.meta.id)
        said = {each.message for each in answer.reply.findings} if isinstance(answer, Answer) else set()
        for condition in node.conditions:
            stale = node.meta.id in down or (condition.kind in PATH_KINDS and condition.node_id in down)
            if stale or condition.message in said:
                continue
            if condition.kind in PATH_KINDS and isinstance(answer, Answer):
                continue  # it knows better by now
            seconds = max(0, facts.now_unix_ms - condition.since_unix_ms) // 1000
            make = note if condition.kind == CPU else warning
            finding = make(
                "conditions",
                f"{condition.kind}: {condition.message} (since {seconds} s)",
                f"`fairway net trace {node.meta.name} {names.get(condition.node_id, 'HOST')}`"
                if condition.node_id
                else f"see {_PAGES.get(condition.kind, 'docs/networking.md')}",
            )
            finding.where = node.meta.name
            found.append(finding)
    return found
