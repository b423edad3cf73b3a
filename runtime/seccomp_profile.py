"""A seccomp profile as Docker writes it, for the container and host at hand. Pure.

Docker's form (https://docs.docker.com/engine/security/seccomp/) is the OCI runtime specification's with conditions:
rules that are there only with capabilities, architectures or kernels.
"""

from __future__ import annotations

import json
import platform
from typing import Any

from proto.container_rules import seccomp_problem
from runtime.errors import InvalidRequest
from runtime.seccomp import ARCHITECTURES

_RULE_KEYS = ("action", "errnoRet", "args")


def from_docker(text: str, architecture: str, capabilities: frozenset[str], kernel: str = "") -> dict[str, Any]:
    """`linux.seccomp`. `architecture`: "amd64" or "arm64"; `kernel`: its release, empty: this host's. Raises
    InvalidRequest."""
    if problem := seccomp_problem(text):
        raise InvalidRequest(f"security_opt seccomp: {problem}")
    profile = json.loads(text)
    version = _version(kernel or platform.release())
    found: dict[str, Any] = {
        "defaultAction": profile["defaultAction"],
        "architectures": _architectures(profile, architecture),
        "syscalls": [
            _rule(rule) for rule in profile.get("syscalls") or [] if _applies(rule, architecture, capabilities, version)
        ],
    }
    for key in ("defaultErrnoRet", "flags"):
        if key in profile:
            found[key] = profile[key]
    return found


def _architectures(profile: dict[str, Any], architecture: str) -> list[str]:
    own = ARCHITECTURES.get(architecture, [])
    for entry in profile.get("archMap") or []:
        if isinstance(entry, dict) and entry.get("architecture") in own[:1]:
            return [entry["architecture"], *(entry.get("subArchitectures") or [])]
    return list(profile.get("architectures") or own)


def _applies(rule: dict[str, Any], architecture: str, capabilities: frozenset[str], version: tuple[int, ...]) -> bool:
    includes, excludes = rule.get("includes") or {}, rule.get("excludes") or {}
    if architecture in (excludes.get("arches") or []) or capabilities & set(excludes.get("caps") or []):
        return False
    if (least := excludes.get("minKernel")) and version >= _version(least):
        return False
    if (arches := includes.get("arches")) and architecture not in arches:
        return False
    if (least := includes.get("minKernel")) and version < _version(least):
        return False
    return set(includes.get("caps") or []) <= capabilities


def _rule(rule: dict[str, Any]) -> dict[str, Any]:
    kept = {key: rule[key] for key in _RULE_KEYS if rule.get(key) is not None}
    return {"names": rule.get("names") or [rule["name"]], **kept}


def _version(text: str) -> tuple[int, ...]:
    """ "6.1.0-18-amd64" -> (6, 1)"""
    parts = text.split("-")[0].split(".")[:2]
    return tuple(int(part) if part.isdigit() else 0 for part in parts)
