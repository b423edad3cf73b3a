"""What is wrong with one host, from what was seen of it. Pure: thresholds and words, no looking."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from proto.doctor_pb2 import (
    FINDING_LEVEL_ERROR,
    FINDING_LEVEL_INFO,
    FINDING_LEVEL_WARNING,
    Finding,
)

DISK_FREE_FRACTION_WARN, DISK_FREE_FRACTION_ERROR = 0.10, 0.03
INODES_FREE_FRACTION_WARN, INODES_FREE_FRACTION_ERROR = 0.10, 0.03
MEMORY_FREE_FRACTION_WARN, MEMORY_FREE_FRACTION_ERROR = 0.08, 0.03
TABLE_USED_FRACTION_WARN, TABLE_USED_FRACTION_ERROR = 0.80, 0.95
CERTIFICATE_LEFT_MS_WARN, CERTIFICATE_LEFT_MS_ERROR = 14 * 86_400_000, 2 * 86_400_000
RECENT_DRIFT_S = 600.0
DRIFT_KEPT = 50  # the newest, of all (net/model.py)
WORDS_MAX = 3  # of a list in one finding

# Everything that a host looks at, in the order in which it is said.
CHECKS = (
    "containerd",
    "kernel features",
    "certificate",
    "disk",
    "inodes",
    "memory",
    "file descriptors",
    "conntrack table",
    "clock",
    "forwarding",
    "address",
    "network",
    "data plane",
    "paths",
    "DNS",
    "upstream DNS",
    "packet filters",
    "consensus",
)

# Of them, those that do not need a cluster.
MACHINE_CHECKS = (
    "containerd",
    "kernel features",
    "disk",
    "inodes",
    "memory",
    "file descriptors",
    "conntrack table",
    "clock",
    "packet filters",
)


@dataclass(frozen=True)
class Disk:
    path: str
    what: str  # "state", "images", "logs"
    free_bytes: int
    size_bytes: int
    free_inodes: int
    inodes: int  # 0: the file system does not count them


@dataclass(frozen=True)
class HostFacts:
    """What was seen of a host; what could not be seen has its default, which is no finding."""

    containerd_error: str = ""
    missing_features: Sequence[str] = ()
    certificate_left_ms: int | None = None
    renewal_problem: str = ""
    disks: Sequence[Disk] = ()
    memory_available_bytes: int = 0
    memory_bytes: int = 0
    own_descriptors: int = 0
    own_descriptors_max: int = 0
    descriptors: int = 0
    descriptors_max: int = 0
    connections: int = 0
    connections_max: int = 0
    clock_unsynchronised: bool = False
    forwarding: bool = True
    address: str = ""
    address_conflict: str = ""  # MAC of who else has this host's address
    address_missing: bool = False  # no interface has it
    network_error: str = ""
    drift: Sequence[tuple[float, str]] = ()  # (seconds ago, words), newest last
    path_problems: Sequence[str] = ()
    names_answered: bool = True
    upstreams: Sequence[str] = ()
    upstreams_silent: Sequence[str] = ()
    other_filters: Sequence[str] = ()
    raft_error: str = ""
    backup_problem: str = ""
    member: bool = True


def host_findings(facts: HostFacts) -> list[Finding]:
    """Without `where`, which who asked fills in."""
    return [
        *_runtime(facts),
        *_resources(facts),
        *_network(facts),
        *(_names(facts) if facts.member else ()),
        *_consensus(facts),
    ]


def error(check: str, message: str, advice: str) -> Finding:
    return Finding(level=FINDING_LEVEL_ERROR, check=check, message=message, advice=advice)


def warning(check: str, message: str, advice: str) -> Finding:
    return Finding(level=FINDING_LEVEL_WARNING, check=check, message=message, advice=advice)


def note(check: str, message: str, advice: str = "") -> Finding:
    return Finding(level=FINDING_LEVEL_INFO, check=check, message=message, advice=advice)


def several(words: Sequence[str]) -> str:
    """The first few of a list, and how many more there are."""
    more = len(words) - WORDS_MAX
    return "; ".join(words[:WORDS_MAX]) + (f"; and {more} more" if more > 0 else "")


def drift_in_words(words: Sequence[str]) -> list[str]:
    """Each difference once, with how often: devices first, for what leads through them goes with them."""
    counts = Counter(words)
    ranked = sorted(counts, key=lambda each: ("device" not in each.split(" ")[:2], -counts[each]))
    return [f"{each} ({counts[each]} times)" if counts[each] > 1 else each for each in ranked]


def _runtime(facts: HostFacts) -> list[Finding]:
    found = []
    if facts.containerd_error:
        found.append(
            error(
                "containerd",
                f"containerd does not answer: {facts.containerd_error}",
                "look at `systemctl status containerd` and its log; running containers go on without it",
            )
        )
    if facts.missing_features:
        found.append(
            error(
                "kernel features",
                f"this host lacks {several(facts.missing_features)}; it gets no tasks",
                "load the module or install a kernel that has it, then `fairway doctor` again",
            )
        )
    left = facts.certificate_left_ms
    if left is not None and (
        (left < CERTIFICATE_LEFT_MS_WARN and facts.renewal_problem) or left < CERTIFICATE_LEFT_MS_ERROR
    ):
        make = error if left < CERTIFICATE_LEFT_MS_ERROR else warning
        when = f"expires in {left / 3_600_000:.0f} hours" if left > 0 else "has expired"
        why = f": {facts.renewal_problem}" if facts.renewal_problem else ""
        found.append(
            make(
                "certificate",
                f"this host's certificate {when} and was not renewed{why}",
                "let the host reach the leader (its clock must be right); it renews by itself, or let it join again",
            )
        )
    return found


def _resources(facts: HostFacts) -> list[Finding]:
    found = []
    for disk in facts.disks:
        free = disk.free_bytes / disk.size_bytes if disk.size_bytes else 1.0
        if free < DISK_FREE_FRACTION_WARN:
            make = error if free < DISK_FREE_FRACTION_ERROR else warning
            found.append(
                make(
                    "disk",
                    f"{disk.path} ({disk.what}) has {free:.1%} free, {disk.free_bytes >> 20} MiB",
                    "remove images and volumes that nobody needs (`fairway image ls`), or give it a larger disk",
                )
            )
        inodes = disk.free_inodes / disk.inodes if disk.inodes else 1.0
        if inodes < INODES_FREE_FRACTION_WARN:
            make = error if inodes < INODES_FREE_FRACTION_ERROR else warning
            found.append(
                make(
                    "inodes",
                    f"{disk.path} ({disk.what}) has {inodes:.1%} of its inodes free",
                    "find the folder with very many small files (`du --inodes -x`) and remove what nobody needs",
                )
            )
    if facts.memory_bytes:
        free = facts.memory_available_bytes / facts.memory_bytes
        if free < MEMORY_FREE_FRACTION_WARN:
            make = error if free < MEMORY_FREE_FRACTION_ERROR else warning
            found.append(
                make(
                    "memory",
                    f"{free:.1%} of the memory is available ({facts.memory_available_bytes >> 20} MiB)",
                    "give tasks memory limits and reservations, move some away, or add memory",
                )
            )
    found += _table(
        "file descriptors",
        "fairwayd's file descriptors",
        facts.own_descriptors,
        facts.own_descriptors_max,
        "raise LimitNOFILE of fairwayd's systemd unit, and report it: it should not need so many",
    )
    found += _table(
        "file descriptors",
        "the system's file descriptors",
        facts.descriptors,
        facts.descriptors_max,
        "raise fs.file-max with sysctl, or find the program that leaks them (`lsof | wc -l`)",
    )
    found += _table(
        "conntrack table",
        "entries of the kernel's connection table",
        facts.connections,
        facts.connections_max,
        "raise net.netfilter.nf_conntrack_max with sysctl; when the table is full, new connections are dropped",
    )
    return found


def _table(check: str, what: str, used: int, limit: int, advice: str) -> list[Finding]:
    if limit <= 0 or used < TABLE_USED_FRACTION_WARN * limit:
        return []
    make = error if used >= TABLE_USED_FRACTION_ERROR * limit else warning
    return [make(check, f"{used} of {limit} {what} are used", advice)]


def _network(facts: HostFacts) -> list[Finding]:
    found = []
    if facts.clock_unsynchronised:
        found.append(
            note(
                "clock",
                "the kernel says that the clock is not synchronised",
                "run chrony or systemd-timesyncd; certificates and logs need clocks that agree",
            )
        )
    if not facts.forwarding and facts.member:
        found.append(
            error(
                "forwarding",
                "IPv4 forwarding is off (net.ipv4.ip_forward=0): packets of tasks go nowhere",
                "fairwayd turns it on again within seconds; find what turns it off (a sysctl file, another program)",
            )
        )
    if facts.address_missing:
        found.append(
            error(
                "address",
                f"no interface of this host has its address {facts.address}",
                "give the address back to the interface, or set advertise_address and restart fairwayd",
            )
        )
    if facts.address_conflict:
        found.append(
            error(
                "address",
                f"another machine ({facts.address_conflict}) has this host's address {facts.address} too",
                "give one of the two another address",
            )
        )
    if facts.network_error:
        found.append(
            error("network", facts.network_error, "what it names must be mended; fairwayd tries again by itself")
        )
    if facts.drift:
        count = f"{'at least ' if len(facts.drift) >= DRIFT_KEPT else ''}{len(facts.drift)}"
        found.append(
            warning(
                "data plane",
                f"{count} differences between kernel and desired network were repaired within the last "
                f"{RECENT_DRIFT_S / 60:.0f} minutes, the newest {facts.drift[-1][0]:.0f} s ago: "
                f"{several(drift_in_words([words for _, words in facts.drift]))}",
                "find who changes it (a firewall's reload, a network manager, a script that flushes rules)",
            )
        )
    found += [
        error("paths", problem, "`fairway net trace THIS-HOST OTHER-HOST` says which hop fails")
        for problem in facts.path_problems
    ]
    if facts.other_filters:
        found.append(
            note(
                "packet filters",
                f"packet filters of other programs may drop packets: {several(facts.other_filters)}",
            )
        )
    return found


def _names(facts: HostFacts) -> list[Finding]:
    found = []
    if not facts.names_answered:
        found.append(
            error(
                "DNS",
                "this host's name server does not answer: tasks here ask other hosts' after a time-out",
                "look for another program at UDP port 53 (`ss -ulpn`) and for packet filters; else restart fairwayd",
            )
        )
    if facts.upstreams_silent:
        all_silent = len(facts.upstreams_silent) == len(facts.upstreams)
        make = error if all_silent else warning
        found.append(
            make(
                "upstream DNS",
                f"the upstream name server{'s' if len(facts.upstreams_silent) > 1 else ''} "
                f"{', '.join(facts.upstreams_silent)} {'do' if len(facts.upstreams_silent) > 1 else 'does'} not answer"
                + ("; names from outside the cluster do not resolve here" if all_silent else ""),
                "mend /etc/resolv.conf of this host, or set dns_upstreams in fairwayd.toml",
            )
        )
    elif not facts.upstreams:
        found.append(note("upstream DNS", "there is no upstream name server: only names of the cluster resolve here"))
    return found


def _consensus(facts: HostFacts) -> list[Finding]:
    found = []
    if facts.raft_error:
        found.append(
            error(
                "consensus",
                f"this host takes no part in the cluster's decisions: {facts.raft_error}",
                "its containers go on; mend what it says and restart fairwayd, or remove the host and join it again",
            )
        )
    if facts.backup_problem:
        found.append(warning("backup", facts.backup_problem, "make the folder writable and large enough"))
    return found
