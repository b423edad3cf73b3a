"""Which capabilities a container's processes have."""

from __future__ import annotations

from collections.abc import Iterable

from runtime.errors import InvalidRequest


def _named(*lines: str) -> tuple[str, ...]:
    return tuple(f"CAP_{name}" for line in lines for name in line.split())


# capabilities(7); the order is the kernel's.
ALL = _named(
    "CHOWN DAC_OVERRIDE DAC_READ_SEARCH FOWNER FSETID KILL SETGID SETUID SETPCAP LINUX_IMMUTABLE",
    "NET_BIND_SERVICE NET_BROADCAST NET_ADMIN NET_RAW IPC_LOCK IPC_OWNER SYS_MODULE SYS_RAWIO SYS_CHROOT",
    "SYS_PTRACE SYS_PACCT SYS_ADMIN SYS_BOOT SYS_NICE SYS_RESOURCE SYS_TIME SYS_TTY_CONFIG MKNOD LEASE",
    "AUDIT_WRITE AUDIT_CONTROL SETFCAP MAC_OVERRIDE MAC_ADMIN SYSLOG WAKE_ALARM BLOCK_SUSPEND AUDIT_READ",
    "PERFMON BPF CHECKPOINT_RESTORE",
)
# What Docker's users have by default.
DEFAULT = _named(
    "CHOWN DAC_OVERRIDE FSETID FOWNER MKNOD NET_RAW SETGID SETUID SETFCAP SETPCAP NET_BIND_SERVICE",
    "SYS_CHROOT KILL AUDIT_WRITE",
)


def effective(add: Iterable[str], drop: Iterable[str], supported: Iterable[str] = ALL) -> tuple[str, ...]:
    """The capabilities that remain, in the kernel's order; raises InvalidRequest on an unknown name.

    As in Docker: drop ALL starts from none and adds what `add` names; add ALL starts from all and takes
    away what `drop` names; a name in both without ALL is kept. `supported`: those of this kernel.
    """
    added = {normalise(name) for name in add}
    dropped = {normalise(name) for name in drop}
    if "ALL" in added:
        wanted = set(ALL) - dropped if "ALL" not in dropped else set(ALL)
    elif "ALL" in dropped:
        wanted = set(added)
    else:
        wanted = (set(DEFAULT) - dropped) | added
    possible = set(supported)
    missing = sorted((added & set(ALL)) - possible)
    if missing:
        raise InvalidRequest(f"cap_add {missing[0]}: this host's kernel does not have or allow it")
    return tuple(name for name in ALL if name in wanted and name in possible)


def normalise(name: str) -> str:
    """net_admin, NET_ADMIN or CAP_NET_ADMIN -> CAP_NET_ADMIN; ALL stays."""
    upper = name.strip().upper()
    if upper in ("ALL", "CAP_ALL"):
        return "ALL"
    full = upper if upper.startswith("CAP_") else f"CAP_{upper}"
    if full not in ALL:
        raise InvalidRequest(f"capability {name!r} is unknown; names are those of capabilities(7) or ALL")
    return full


def from_mask(mask: int) -> tuple[str, ...]:
    """The capabilities of a bit mask as in CapBnd of /proc/PID/status."""
    return tuple(name for number, name in enumerate(ALL) if mask >> number & 1)
