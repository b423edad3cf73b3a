"""What the doctor concludes from what was seen, what hosts' conditions become, and the text of metrics."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import pytest

from daemon.doctor.cluster_findings_plan import Answer, ClusterFacts, cluster_findings
from daemon.doctor.conditions_plan import CONDITIONS_MAX, merged
from daemon.doctor.host_findings_plan import Disk, HostFacts, drift_in_words, host_findings
from daemon.doctor.metrics import LABEL_SETS_MAX, Registry
from daemon.leader.report_plan import plan_reports
from proto import objects_pb2 as objects
from proto.control_pb2 import RaftMemberView, RaftStatusReply
from proto.doctor_pb2 import FINDING_LEVEL_ERROR, FINDING_LEVEL_WARNING, ExamineReply, Finding, FindingLevel
from proto.host_pb2 import HostReport
from tests.daemon.cluster_model import ClusterModel

GIB = 1 << 30
DAY_MS = 86_400_000
WELL = HostFacts(
    certificate_left_ms=60 * DAY_MS,
    disks=[Disk("/var/lib/fairway", "state", 50 * GIB, 100 * GIB, 900, 1000)],
    memory_available_bytes=4 * GIB,
    memory_bytes=8 * GIB,
    own_descriptors=60,
    own_descriptors_max=1024,
    descriptors=1000,
    descriptors_max=100_000,
    connections=10,
    connections_max=262_144,
    address="192.0.2.1",
    upstreams=["192.0.2.53"],
)


def disk(free_bytes: int = 50 * GIB, free_inodes: int = 900) -> Disk:
    return Disk("/var/lib/fairway", "state", free_bytes, 100 * GIB, free_inodes, 1000)


def test_a_host_that_is_well_has_no_findings() -> None:
    assert host_findings(WELL) == []
    assert host_findings(HostFacts(upstreams=["192.0.2.53"])) == []  # nothing could be seen


@pytest.mark.parametrize(
    ("facts", "level", "check", "words"),
    [
        ({"containerd_error": "connection refused"}, "ERROR", "containerd", "connection refused"),
        ({"missing_features": ["VXLAN devices: no"]}, "ERROR", "kernel features", "VXLAN"),
        ({"certificate_left_ms": DAY_MS}, "ERROR", "certificate", "24 hours"),
        ({"certificate_left_ms": -1}, "ERROR", "certificate", "has expired"),
        ({"certificate_left_ms": 9 * DAY_MS, "renewal_problem": "no leader"}, "WARNING", "certificate", "no leader"),
        ({"disks": [disk(free_bytes=9 * GIB)]}, "WARNING", "disk", "9.0% free"),
        ({"disks": [disk(free_bytes=2 * GIB)]}, "ERROR", "disk", "2048 MiB"),
        ({"disks": [disk(free_inodes=10)]}, "ERROR", "inodes", "1.0% of its inodes"),
        ({"memory_available_bytes": GIB // 2}, "WARNING", "memory", "6.2% of the memory"),
        ({"own_descriptors": 1000}, "ERROR", "file descriptors", "1000 of 1024 fairwayd's"),
        ({"descriptors": 85_000}, "WARNING", "file descriptors", "the system's"),
        ({"connections": 262_144}, "ERROR", "conntrack table", "262144 of 262144"),
        ({"forwarding": False}, "ERROR", "forwarding", "ip_forward"),
        ({"address_missing": True}, "ERROR", "address", "no interface"),
        ({"address_conflict": "02:00:00:00:00:09"}, "ERROR", "address", "another machine (02:00:00:00:00:09)"),
        ({"network_error": "make VXLAN device"}, "ERROR", "network", "make VXLAN device"),
        (
            {"drift": [(400.0, "had to add route"), (3.0, "missing chain x")]},
            "WARNING",
            "data plane",
            "missing chain x",
        ),
        ({"path_problems": ["probes of host-2 are not answered"]}, "ERROR", "paths", "host-2"),
        ({"names_answered": False}, "ERROR", "DNS", "does not answer"),
        ({"upstreams_silent": ["192.0.2.53"]}, "ERROR", "upstream DNS", "names from outside"),
        (
            {"upstreams": ["192.0.2.53", "192.0.2.54"], "upstreams_silent": ["192.0.2.53"]},
            "WARNING",
            "upstream DNS",
            "192.0.2.53 does not answer",
        ),
        ({"upstreams": []}, "INFO", "upstream DNS", "only names of the cluster"),
        ({"clock_unsynchronised": True}, "INFO", "clock", "not synchronised"),
        ({"other_filters": ["table inet x"]}, "INFO", "packet filters", "table inet x"),
        ({"raft_error": "the disk failed"}, "ERROR", "consensus", "the disk failed"),
        ({"backup_problem": "no space"}, "WARNING", "backup", "no space"),
    ],
)
def test_what_is_wrong_with_a_host_is_one_finding_with_advice(
    facts: dict[str, Any], level: str, check: str, words: str
) -> None:
    (finding,) = host_findings(replace(WELL, **facts))
    assert FindingLevel.Name(finding.level) == f"FINDING_LEVEL_{level}"
    assert finding.check == check
    assert words in finding.message
    assert finding.advice or level == "INFO"


def test_differences_are_named_once_devices_first() -> None:
    words = ["had to add route x"] * 3 + ["missing device fwx0", "had to add route y"]
    assert drift_in_words(words) == ["missing device fwx0", "had to add route x (3 times)", "had to add route y"]


def node(name: str, state: objects.NodeState.ValueType = objects.NODE_STATE_READY) -> objects.Node:
    return objects.Node(meta=objects.Meta(id=f"id-{name}", name=name), state=state, address="192.0.2.1")


def answer(offset_ms: float = 0.0, error_ms: float = 0.0, version: str = "1.0", *findings: Finding) -> Answer:
    return Answer(ExamineReply(fairway_version=version, findings=findings), offset_ms, error_ms)


NAMES = ("a", "b", "c")
FACTS = ClusterFacts(
    nodes=[node(name) for name in NAMES],
    answers={f"id-{name}": answer() for name in NAMES},
    raft=RaftStatusReply(voter_count=3, voters_up=3, quorum=True, summary="works"),
    services=[],
    tasks=[],
    now_unix_ms=1_000_000,
    ca_left_ms=3650 * DAY_MS,
)


def found(**changes: Any) -> list[tuple[str, str, str]]:
    return [(each.where, each.check, each.message) for each in cluster_findings(replace(FACTS, **changes))]


def test_a_cluster_that_is_well_has_no_findings() -> None:
    assert found() == []


def test_quorum_and_voters() -> None:
    lost = RaftStatusReply(voter_count=3, voters_up=1, quorum=False, summary="no majority: 1 of 3")
    assert found(raft=lost) == [("cluster", "quorum", "no majority: 1 of 3")]
    spare = RaftStatusReply(voter_count=3, voters_up=2, quorum=True, summary="can lose no voter more")
    assert found(raft=spare) == [("cluster", "voters", "can lose no voter more")]
    sick = RaftStatusReply(
        voter_count=3,
        voters_up=3,
        quorum=True,
        members=[RaftMemberView(node_id="id-b", name="b", voter=True, problem="the disk failed")],
    )
    assert found(raft=sick) == [("cluster", "voters", "b: the disk failed")]


def test_hosts_that_are_down_or_silent_are_findings_of_their_own() -> None:
    down = node("b", objects.NODE_STATE_DOWN)
    down.state_message, down.state_since_unix_ms = "not heard of for more than 3 s", 940_000
    nodes = [FACTS.nodes[0], down, FACTS.nodes[2]]
    answers: dict[str, Answer | str] = {"id-a": answer(), "id-c": "does not answer at 192.0.2.1:7443"}
    assert found(nodes=nodes, answers=answers) == [
        ("b", "hosts", "the host is down since 60 s: not heard of for more than 3 s; its tasks run elsewhere"),
        ("c", "hosts", "the host does not answer at 192.0.2.1:7443"),
    ]


def test_clocks_are_compared_with_the_majority_and_the_uncertainty_is_believed() -> None:
    def clocks(**offsets: tuple[float, float]) -> list[tuple[str, str, str]]:
        return found(answers={f"id-{name}": answer(*offset) for name, offset in offsets.items()})

    # Who asked is the one whose clock is wrong.
    assert clocks(a=(0, 0), b=(7000, 100), c=(7000, 100)) == [
        ("a", "clocks", "the clock is 7.0 s behind that of the other hosts")
    ]
    assert clocks(a=(0, 0), b=(10, 5), c=(800, 200)) == [
        ("c", "clocks", "the clock is 0.8 s ahead of that of the other hosts")
    ]
    assert clocks(a=(0, 0), b=(10, 5), c=(800, 400)) == []
    levels = [
        each.level
        for each in cluster_findings(replace(FACTS, answers={"id-a": answer(), "id-b": answer(), "id-c": answer(9e6)}))
    ]
    assert levels == [FINDING_LEVEL_ERROR]


def test_versions_that_differ_and_a_certificate_authority_that_ends() -> None:
    versions = {"id-a": answer(), "id-b": answer(version="1.1"), "id-c": answer()}
    assert found(answers=versions) == [
        ("cluster", "versions", "hosts run different versions of Fairway (1.0: a; c; 1.1: b)")
    ]
    assert [check for _, check, _ in found(ca_left_ms=10 * DAY_MS)] == ["certificate authority"]


def test_a_job_whose_last_run_failed_is_told_and_one_that_is_done_is_not() -> None:
    run = objects.JobRun(number=4, outcome=objects.JobRun.OUTCOME_FAILED, message="work.1: exit code 3")
    spec = objects.ServiceSpec(kind=objects.SERVICE_KIND_JOB, replicas=2)
    service = objects.Service(meta=objects.Meta(id="s", name="work"), app="shop", spec=spec, runs=[run])
    assert found(services=[service]) == [
        ("cluster", "services", "job shop/work: its last run, 4, has failed (work.1: exit code 3)")
    ]
    service.runs[0].outcome = objects.JobRun.OUTCOME_SUCCEEDED
    assert found(services=[service]) == []


def test_services_without_enough_ready_tasks_say_why() -> None:
    service = objects.Service(meta=objects.Meta(id="s", name="web"), app="shop", spec=objects.ServiceSpec(replicas=2))
    ready = objects.Task(service_id="s", desired=objects.DESIRED_STATE_RUNNING, status=objects.TaskStatus(ready=True))
    sick = objects.Task(
        service_id="s",
        desired=objects.DESIRED_STATE_RUNNING,
        status=objects.TaskStatus(state=objects.TASK_STATE_RUNNING, health=objects.HEALTH_UNHEALTHY, message="exit 1"),
    )
    assert found(services=[service], tasks=[ready, ready]) == []
    assert found(services=[service], tasks=[ready, sick]) == [
        ("cluster", "services", "shop/web: 1 of 2 tasks are ready (its health check fails: exit 1)")
    ]
    levels = [each.level for each in cluster_findings(replace(FACTS, services=[service], tasks=[sick]))]
    assert levels == [FINDING_LEVEL_ERROR]


def test_findings_of_hosts_come_with_their_names_the_worst_first() -> None:
    bad = Finding(level=FINDING_LEVEL_ERROR, check="disk", message="full")
    soon = Finding(level=FINDING_LEVEL_WARNING, check="memory", message="little")
    answers = {"id-a": answer(0, 0, "1.0", soon), "id-b": answer(0, 0, "1.0", bad), "id-c": answer()}
    assert found(answers=answers) == [("b", "disk", "full"), ("a", "memory", "little")]


def test_conditions_count_where_the_host_cannot_be_asked_and_not_towards_hosts_that_are_down() -> None:
    def with_condition(kind: str, about: str) -> list[objects.Node]:
        one = node("a")
        one.conditions.add(kind=kind, node_id=about, message="is bad", since_unix_ms=990_000)
        return [one, node("b"), node("c")]

    silent: dict[str, Answer | str] = {**FACTS.answers, "id-a": "does not answer"}
    assert ("a", "conditions", "overlay path: is bad (since 10 s)") in found(
        nodes=with_condition("overlay path", "id-b"), answers=silent
    )
    assert found(nodes=with_condition("overlay path", "id-b")) == []  # it was asked, and did not say it any more
    nodes = [with_condition("overlay path", "id-b")[0], node("b", objects.NODE_STATE_DOWN), node("c")]
    assert [check for _, check, _ in found(nodes=nodes, answers={**silent, "id-b": answer()})] == ["hosts", "hosts"]


def condition(kind: str, node_id: str = "", message: str = "", since: int = 0) -> objects.NodeCondition:
    return objects.NodeCondition(kind=kind, node_id=node_id, message=message, since_unix_ms=since)


def test_conditions_keep_since_when_they_hold() -> None:
    before = [condition("overlay path", "n2", "old words", 5), condition("underlay path", "n3", "", 6)]
    after = merged(before, [condition("overlay path", "n2", "new words"), condition("disk")], (), 100)
    assert after == [condition("disk", "", "", 100), condition("overlay path", "n2", "new words", 5)]
    assert merged(after, after, (), 200) == after


def test_paths_to_hosts_that_are_down_are_no_conditions() -> None:
    reported = [condition("overlay path", "n2"), condition("underlay path", "n2"), condition("disk", "n2")]
    assert [each.kind for each in merged([], reported, {"n2"}, 1)] == ["disk"]


def test_conditions_are_bounded() -> None:
    reported = [condition("underlay path", f"n{number:04}") for number in range(1000)]
    after = merged([], reported, (), 1)
    assert len(after) == CONDITIONS_MAX
    assert after[-1].message == f"{1000 - CONDITIONS_MAX + 1} more conditions"


def test_metrics_have_the_form_that_prometheus_reads() -> None:
    registry = Registry()
    counter = registry.counter("x_total", "Counts.", ("path",))
    counter.add("a")
    counter.add('b"\\\n', amount=2)
    registry.gauge("y", "Is.\nTwo lines.").set(1.5)
    histogram = registry.histogram("z_seconds", "Takes.", (), (0.1, 1.0))
    for value in (0.05, 0.1, 0.5, 7):
        histogram.observe(value)
    assert registry.text().splitlines() == [
        "# HELP x_total Counts.",
        "# TYPE x_total counter",
        'x_total{path="a"} 1',
        'x_total{path="b\\"\\\\\\n"} 2',
        "# HELP y Is.\\nTwo lines.",
        "# TYPE y gauge",
        "y 1.5",
        "# HELP z_seconds Takes.",
        "# TYPE z_seconds histogram",
        'z_seconds_bucket{le="0.1"} 2',
        'z_seconds_bucket{le="1"} 3',
        'z_seconds_bucket{le="+Inf"} 4',
        "z_seconds_sum 7.65",
        "z_seconds_count 4",
    ]
    assert math.isclose(7.65, 0.05 + 0.1 + 0.5 + 7)


def test_sets_of_labels_are_bounded() -> None:
    registry = Registry()
    counter = registry.counter("x_total", "Counts.", ("peer",))
    for number in range(LABEL_SETS_MAX + 500):
        counter.add(f"host-{number}")
    lines = registry.text().splitlines()
    assert len(lines) == LABEL_SETS_MAX + 3
    assert 'x_total{peer="other"} 500' in lines
    with pytest.raises(ValueError, match="already"):
        registry.gauge("x_total", "Again.")
    with pytest.raises(ValueError, match="labels"):
        counter.add("a", "b")


def test_ports_at_addresses_that_no_host_has_and_floating_addresses_that_nobody_holds() -> None:
    nodes = [node(name) for name in NAMES]
    for each in nodes:
        each.description.addresses.append("192.0.2.10")
    service = objects.Service(meta=objects.Meta(id="s", name="web"), app="shop")
    for host_ip in ("", "127.0.0.1", "192.0.2.10", "192.0.2.20", "192.0.2.99"):
        service.spec.ports.add(protocol="tcp", target=80, published=80, host_ip=host_ip)
    service.spec.floating_addresses.append("192.0.2.20")
    words = [
        ("cluster", "published ports", "shop/web publishes port 80 at 192.0.2.99 only, which no host has"),
        ("cluster", "floating addresses", "no host holds 192.0.2.20, the floating address of shop/web"),
    ]
    assert found(nodes=nodes, services=[service]) == words
    assert found(nodes=nodes, services=[service], floating_held={"192.0.2.20"}) == words[:1]
    assert found(services=[service], floating_held={"192.0.2.20"}) == []  # no host has told its addresses yet


def test_hosts_that_cannot_encrypt_are_named() -> None:
    nodes = [node(name) for name in NAMES]
    nodes[1].network.encryption_problem = "no WireGuard"
    assert found(nodes=nodes) == [("b", "encryption", "the host cannot encrypt: no WireGuard; it gets no tasks")]


def test_only_changes_of_conditions_are_written() -> None:
    model = ClusterModel(2)

    def report(*conditions: objects.NodeCondition, changed: bool = True) -> int:
        reported = HostReport(conditions=conditions, conditions_changed=changed)
        builder = plan_reports(model.store, [("node-host-1", reported)], model.now_unix_ms)
        if len(builder):
            model.apply(builder)
        return len(builder)

    def held() -> list[tuple[str, int]]:
        node = model.store.get(objects.Node, "node-host-1")
        assert node is not None
        return [(each.kind, each.since_unix_ms) for each in node.conditions]

    bad = condition("overlay path", "node-host-2", "words")
    assert report(bad) == 1
    assert held() == [("overlay path", 1_000_000)]
    model.now_unix_ms += 5_000
    assert report(bad) == 0
    assert report(changed=False) == 0  # a report that says nothing of conditions changes none
    assert held() == [("overlay path", 1_000_000)]
    assert report() == 1
    assert held() == []
    model.change_node("host-2", state=objects.NODE_STATE_DOWN)
    assert report(bad) == 0
