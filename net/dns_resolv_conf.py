"""resolv.conf(5): what the host's says, and what the tasks' are to say; pure but for `read_resolv_conf`."""

from __future__ import annotations

import ipaddress
import logging
from collections.abc import Sequence
from pathlib import Path

from net.addresses import GATEWAY_ADDRESS, PEER_DNS_ADDRESS

log = logging.getLogger(__name__)

HOST_FILE = Path("/etc/resolv.conf")
SEARCH_DOMAINS_MAX = 6  # older resolvers take no more
NO_SEARCH = "."
# A name with a dot is asked as it stands first; the second server is of other hosts.
_OPTIONS = ("ndots:1", "timeout:2", "attempts:2")
_SERVERS_MAX = 3


def read_resolv_conf(file: Path = HOST_FILE) -> str:
    try:
        return file.read_text(errors="replace")
    except OSError as error:
        log.warning("read %s: %s; names from outside the cluster will not resolve", file, error)
        return ""


def nameservers(text: str) -> tuple[str, ...]:
    """The first three name servers of a resolv.conf, never ourselves."""
    found = []
    for line in text.splitlines():
        words = line.split()
        if len(words) < 2 or words[0] != "nameserver":
            continue
        try:
            ipaddress.ip_address(words[1].partition("%")[0])
        except ValueError:
            continue
        if words[1] not in (GATEWAY_ADDRESS, PEER_DNS_ADDRESS):
            found.append(words[1])
    return tuple(found[:_SERVERS_MAX])


def search_domains(text: str) -> tuple[str, ...]:
    """The search domains of a resolv.conf; the last line that names some counts."""
    found: tuple[str, ...] = ()
    for line in text.splitlines():
        words = line.split()
        if len(words) >= 2 and words[0] in ("search", "domain"):
            found = tuple(word for word in words[1:] if word != NO_SEARCH)
    return found


def write_resolv_conf(
    app: str,
    domain: str,
    host_search: Sequence[str],
    search: Sequence[str] = (),
    options: Sequence[str] = (),
) -> str:
    """For a task of `app`. Our own domains always come first: they are answered at once, whatever follows.

    `search` takes the place of the host's domains, "." leaves them out; an option replaces ours of its name.
    """
    domains = [f"{app}.{domain}".lower(), domain] if domain else []
    domains += [each for each in search or host_search if each != NO_SEARCH]
    named = {each.partition(":")[0]: each for each in (*_OPTIONS, *options)}
    lines = [
        "# Written by fairwayd: this host's name server, then those of other hosts.",
        f"nameserver {GATEWAY_ADDRESS}",
        f"nameserver {PEER_DNS_ADDRESS}",
    ]
    if domains:
        lines.append("search " + " ".join(list(dict.fromkeys(domains))[:SEARCH_DOMAINS_MAX]))
    lines.append("options " + " ".join(named.values()))
    return "\n".join(lines) + "\n"
