"""The JSON schema of the Compose files that Fairway takes, for editors: `fairway schema compose`.

Draft 7 (https://json-schema.org/draft-07), which editors know. tests/cli/test_cli_schema.py holds it against the
parser: every mapping has the same keys here and there. Of values it says the type; the parser knows more.
"""

from __future__ import annotations

from typing import Any

from cli.compose.pull_policy import POLICIES
from cli.compose.schema_devices import GPUS, RESERVED
from cli.compose.schema_extension import NETWORK, SERVICE
from cli.compose.schema_types import (
    COUNT,
    DURATION,
    FLAG,
    NUMBER,
    SIZE,
    TEXT,
    Schema,
    choice,
    described,
    either,
    items,
    mapping,
    named,
    pairs,
    service_word,
    text_or_texts,
)
from proto import log_receivers
from proto.container_rules import ULIMITS

_LABELS = pairs("labels")
_FILE_MOUNT = mapping(
    "where a container finds it",
    {"source": TEXT, "target": TEXT, "uid": NUMBER, "gid": NUMBER, "mode": NUMBER},
    required=["source"],
)
_HEALTHCHECK = mapping(
    "how a task is asked whether it is well; one that is not gets no traffic and is replaced",
    {
        "test": text_or_texts("a command line, or CMD and words, CMD-SHELL and a line, or NONE"),
        "interval": DURATION,
        "timeout": DURATION,
        "retries": COUNT,
        "start_period": DURATION,
        "start_interval": DURATION,
        "disable": FLAG,
    },
)
_UPDATE = {
    "parallelism": COUNT,
    "delay": DURATION,
    "monitor": DURATION,
    "max_failure_ratio": NUMBER,
    "order": choice(["start-first", "stop-first"]),
}
_DEPLOY = mapping(
    "how many tasks there are, where and how",
    {
        "mode": choice(["replicated", "global", "replicated-job", "global-job"]),
        "replicas": COUNT,
        "endpoint_mode": choice(["vip", "dnsrr"]),
        "labels": pairs("labels of the service"),
        "resources": mapping(
            "CPU, memory and processes",
            {
                "limits": mapping("at most", {"cpus": NUMBER, "memory": SIZE, "pids": NUMBER}),
                "reservations": mapping(
                    "what the scheduler counts", {"cpus": NUMBER, "memory": SIZE, "devices": RESERVED}
                ),
            },
        ),
        "placement": mapping(
            "on which hosts",
            {
                "constraints": items(TEXT, 'such as "node.labels.disk == ssd"'),
                "preferences": items(mapping("", {"spread": TEXT}), "what tasks are spread over"),
                "max_replicas_per_node": COUNT,
            },
        ),
        "restart_policy": mapping(
            "what becomes of a task that ends",
            {
                "condition": choice(["any", "on-failure", "none"]),
                "delay": DURATION,
                "max_attempts": COUNT,
                "window": DURATION,
            },
        ),
        "update_config": mapping(
            "how a new version comes in",
            {**_UPDATE, "failure_action": choice(["pause", "continue", "rollback"])},
        ),
        "rollback_config": mapping(
            "how an older version comes back", {**_UPDATE, "failure_action": choice(["pause", "continue"])}
        ),
    },
)
_PORT = either(
    NUMBER,
    mapping(
        "a port",
        {
            "target": NUMBER,
            "published": NUMBER,
            "protocol": choice(["tcp", "udp", "sctp"]),
            "mode": choice(["ingress", "host"]),
            "host_ip": TEXT,
            "name": TEXT,
            "app_protocol": TEXT,
        },
        required=["target"],
    ),
)
_MOUNT = either(
    TEXT,
    mapping(
        "a mount",
        {
            "type": choice(["volume", "bind", "tmpfs"]),
            "source": TEXT,
            "target": TEXT,
            "read_only": FLAG,
            "volume": mapping("", {"nocopy": FLAG, "subpath": TEXT}),
            "bind": mapping("", {"create_host_path": FLAG}),
            "tmpfs": mapping("", {"size": SIZE, "mode": NUMBER}),
        },
        required=["type", "target"],
    ),
)
_ENV_FILE = either(TEXT, mapping("", {"path": TEXT, "required": FLAG, "format": choice(["raw"])}, required=["path"]))
_DEPENDENCY = mapping(
    "what the first start of the service waits for",
    {
        "condition": choice(["service_started", "service_healthy", "service_completed_successfully"]),
        "required": FLAG,
        "restart": FLAG,
    },
)
_ULIMIT = either(NUMBER, mapping("", {"soft": NUMBER, "hard": NUMBER}, required=["soft", "hard"]))
_LOGGING = mapping(
    "what is kept of what tasks write",
    {
        "driver": choice(["json-file", "local", "none", *log_receivers.DRIVERS]),
        "options": mapping(
            "",
            {
                "max-size": SIZE,
                "max-file": COUNT,
                "max-age": DURATION,
                "compress": FLAG,
                "rate-lines": described(COUNT, "a second; what is more is left out"),
                "rate-bytes": described(SIZE, "a second; what is more is left out"),
                **dict.fromkeys(sorted(log_receivers.ALL_OPTIONS), TEXT),
            },
        ),
    },
)
_HOOK = mapping(
    "a process in the container",
    {
        "command": text_or_texts("a command line, or words"),
        "user": TEXT,
        "working_dir": TEXT,
        "environment": pairs("besides the container's"),
        "privileged": FLAG,
    },
    required=["command"],
)
_DEVICE = either(TEXT, mapping("", {"source": TEXT, "target": TEXT, "permissions": TEXT}, required=["source"]))

SERVICE_KEYS: dict[str, Schema] = {
    "annotations": pairs("annotations of the OCI specification"),
    "cap_add": items(TEXT, "capabilities, or ALL"),
    "cap_drop": items(TEXT, "capabilities, or ALL"),
    "cgroup": choice(["private"]),
    "command": text_or_texts("in place of the image's"),
    "configs": items(either(TEXT, _FILE_MOUNT), "configs of the file or of the cluster"),
    "cpu_period": described(DURATION, "over which a limit of CPU time is counted; in microseconds, or a duration"),
    "cpu_quota": described(DURATION, "CPU time in each period; in microseconds, or a duration"),
    "cpu_shares": NUMBER,
    "cpus": NUMBER,
    "cpuset": described(TEXT, "cores of the host, 0-3,6"),
    "depends_on": either(items(TEXT), named(_DEPENDENCY)),
    "deploy": _DEPLOY,
    "devices": items(_DEVICE, "devices that the host allows its tasks, or of CDI: vendor.com/class=name"),
    "dns": text_or_texts("servers for names from outside"),
    "dns_opt": items(TEXT, "options of resolv.conf"),
    "dns_search": text_or_texts("search domains; . for none"),
    "domainname": TEXT,
    "entrypoint": text_or_texts("in place of the image's"),
    "env_file": either(TEXT, items(_ENV_FILE)),
    "environment": pairs("variables of the container"),
    "expose": items(NUMBER, "ports for other services"),
    "extends": either(TEXT, mapping("", {"service": TEXT, "file": TEXT}, required=["service"])),
    "extra_hosts": either(items(TEXT), named(text_or_texts(""))),
    "gpus": GPUS,
    "group_add": items(TEXT, "further groups of the user"),
    "healthcheck": _HEALTHCHECK,
    "hostname": TEXT,
    "image": TEXT,
    "init": FLAG,
    "ipc": service_word(["private", "shareable"], "the other service's IPC and /dev/shm"),
    "label_file": text_or_texts("files of labels"),
    "labels": _LABELS,
    "logging": _LOGGING,
    "mem_limit": SIZE,
    "mem_reservation": SIZE,
    "memswap_limit": SIZE,
    "network_mode": choice(["bridge", "default", "host", "none"]),
    "networks": either(items(TEXT), named(mapping("", {"aliases": items(TEXT, "further names")}))),
    "oom_score_adj": NUMBER,
    "pid": service_word(["private"], "the other service's processes"),
    "pids_limit": NUMBER,
    "platform": TEXT,
    "post_start": items(_HOOK, "once the container has started; ready when they have succeeded"),
    "pre_stop": items(_HOOK, "before the stop signal, within the grace period"),
    "ports": items(_PORT, "ports published on the hosts"),
    "profiles": items(TEXT, "the service is there when one of these is asked for"),
    "pull_policy": choice(sorted(POLICIES)),
    "read_only": FLAG,
    "restart": TEXT,
    "runtime": described(TEXT, "runc, or another one that hosts have, as crun"),
    "scale": COUNT,
    "secrets": items(either(TEXT, _FILE_MOUNT), "secrets of the file or of the cluster"),
    "security_opt": items(TEXT, "no-new-privileges, seccomp=FILE or unconfined, apparmor=PROFILE"),
    "shm_size": SIZE,
    "stdin_open": FLAG,
    "stop_grace_period": DURATION,
    "stop_signal": TEXT,
    "sysctls": pairs("kernel settings of the container's own namespaces"),
    "tmpfs": text_or_texts("folders in memory"),
    "tty": FLAG,
    "ulimits": {"type": "object", "properties": dict.fromkeys(sorted(ULIMITS), _ULIMIT), "additionalProperties": False},
    "user": TEXT,
    "userns_mode": choice(["host", "private"]),
    "volumes": items(_MOUNT, "volumes and folders"),
    "working_dir": TEXT,
    "x-fairway": SERVICE,
}
_INCLUDE = either(
    TEXT,
    mapping(
        "",
        {
            "path": text_or_texts("files, merged"),
            "project_directory": TEXT,
            "env_file": text_or_texts("in place of its .env"),
        },
    ),
)
# Of networks and volumes: a name for other apps, or that of another app's.
_SHARED = {"external": FLAG, "name": TEXT}
_NETWORK = mapping(
    "a network",
    {
        "driver": choice(["overlay", "bridge"]),
        "enable_ipv6": FLAG,
        **_SHARED,
        "internal": FLAG,
        "labels": _LABELS,
        "x-fairway": NETWORK,
    },
)
_VOLUME = mapping(
    "a volume", {"driver": choice(["local"]), "driver_opts": {"type": "object"}, "labels": _LABELS, **_SHARED}
)
_FILE = {"file": TEXT, "environment": TEXT, "external": FLAG, "name": TEXT, "labels": _LABELS}
TOP_KEYS: dict[str, Schema] = {
    "name": TEXT,
    "version": TEXT,
    "include": items(_INCLUDE, "files whose services, networks and volumes belong to this one"),
    "services": named(mapping("a service", SERVICE_KEYS)),
    "networks": named(_NETWORK),
    "volumes": named(_VOLUME),
    "configs": named(mapping("a config", {**_FILE, "content": TEXT})),
    "secrets": named(mapping("a secret", _FILE)),
}


def schema() -> dict[str, Any]:
    """The whole schema, as JSON has it."""
    return {
        "$schema": "http://json-schema.org/draft-07/schema#",
        "title": "A Compose file for Fairway",
        **mapping("", TOP_KEYS),
    }
