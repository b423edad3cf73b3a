"""Tasks without networks of the cluster: those that share their host's network where its operator allows it, and those
that have none at all."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest

from tests.system.cluster import Cluster, run_in_task

PORT = 17_777
SERVICES = f"""
services:
  agent:
    image: static-web:1
    command: [httpd, -f, -p, '{PORT}', -h, /etc]
    network_mode: host
    expose: ['{PORT}']
    stop_grace_period: 0s
    x-fairway: {{probes: {{ready: {{tcp: {{port: {PORT}}}}}}}}}
  alone: {{image: 'static-web:1', command: sleep 100000, network_mode: none, stop_grace_period: 0s}}
"""


@pytest.fixture
def allowed_host(cluster: Cluster) -> Iterator[str]:
    """The one host that lets tasks share its network."""
    host = next(each for each in cluster.lab.hosts() if each != cluster.leader())
    path = cluster.lab.paths.host_state(host) / "etc/fairwayd.toml"
    before = path.read_text()
    path.write_text(before + "\n[network]\nhost_network_allowed = true\n")
    try:
        restarted(cluster, host)
        yield host
    finally:
        path.write_text(before)
        restarted(cluster, host)


def restarted(cluster: Cluster, host: str) -> None:
    """Its fairwayd has read its configuration anew."""
    cluster.restart(host)
    cluster.make_whole()


def test_a_hosts_network_is_shared_where_it_is_allowed_and_nothing_is_shared_with_none(
    cluster: Cluster, allowed_host: str, deployed: Callable[[str], str]
) -> None:
    app = deployed(SERVICES)
    (task,) = cluster.tasks(f"{app}/agent")
    assert cluster.node_names()[task["node_id"]] == allowed_host

    devices = run_in_task(cluster, f"{app}/agent", "cat", "/proc/net/dev")
    assert "fw" in devices, "the host's interfaces are the task's"
    assert run_in_task(cluster, f"{app}/agent", "hostname").strip() == allowed_host
    local = cluster.lab.run_in(allowed_host, ["busybox", "wget", "-qO-", f"http://127.0.0.1:{PORT}/hostname"])
    assert local.stdout.strip() == allowed_host
    address = next(node["node"]["address"] for node in cluster.json("node", "ls") if _name(node) == allowed_host)
    other = next(host for host in cluster.lab.hosts() if host != allowed_host)
    away = cluster.lab.run_in(other, ["busybox", "wget", "-qO-", f"http://{address}:{PORT}/hostname"])
    assert away.stdout == local.stdout

    lines = run_in_task(cluster, f"{app}/alone", "cat", "/proc/net/dev").splitlines()
    assert [line.split(":")[0].strip() for line in lines if ":" in line] == ["lo"]

    path = cluster.folder / "banned.yaml"
    banned = f"{{placement: {{constraints: ['node.hostname == {other}']}}}}"
    path.write_text(
        f"name: {app}\n{SERVICES}  banned: {{image: 'static-web:1', network_mode: host, deploy: {banned}}}\n"
    )
    cluster.fairway("deploy", str(path), "--timeout", "1s", ok=False)
    words = f"{other} does not let tasks share its network"
    cluster.wait(lambda: words in cluster.pending_reasons(f"{app}/banned"), "it is said why it waits")
    why = cluster.fairway("why", f"{app}/banned").stdout
    assert f"set network.host_network_allowed = true in {other}'s fairwayd.toml" in why


def _name(view: dict[str, dict[str, dict[str, str]]]) -> str:
    return view["node"]["meta"]["name"]
