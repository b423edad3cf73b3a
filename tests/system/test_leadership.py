"""The leadership goes where an operator wants it, and changes go on at once."""

from __future__ import annotations

from cli.failure import EXIT_OK
from tests.system.cluster import Cluster


def test_another_host_leads_when_it_is_asked_to(cluster: Cluster) -> None:
    former = cluster.leader()
    wanted = next(host for host in cluster.lab.hosts() if host != former)
    asked = next(host for host in cluster.lab.hosts() if host not in (former, wanted))
    said = cluster.fairway("raft", "transfer", wanted, host=asked).stdout
    assert said == f"{wanted} leads now, instead of {former}.\n"
    cluster.fairway("node", "label", wanted, "led=yes", host=asked)  # the new leader takes changes
    cluster.wait(lambda: {cluster.leader(host) for host in cluster.lab.hosts()} == {wanted}, "all know who leads")
    assert "leads already" in cluster.fairway("raft", "transfer", wanted).stdout
    term = cluster.json("raft", "status")["term"]
    moved = cluster.json("raft", "transfer")  # to whichever
    assert moved["former_name"] == wanted != moved["leader_name"]
    cluster.fairway("node", "label", wanted, "led-")
    assert cluster.json("raft", "status")["term"] > term
    nobody = cluster.fairway("raft", "transfer", "host-9", ok=False)
    assert nobody.returncode != EXIT_OK and "there is no node 'host-9'" in nobody.stderr
