"""The JSON schema of `x-fairway`: what Compose has no keys for."""

from __future__ import annotations

from cli.compose.schema_devices import ASKED
from cli.compose.schema_load import AUTOSCALE, CHECK, PROBES
from cli.compose.schema_types import (
    COUNT,
    DURATION,
    FLAG,
    TEXT,
    Schema,
    choice,
    described,
    either,
    items,
    mapping,
    pairs,
    text_or_texts,
)

_PEER = mapping(
    "services that match all that is given, or addresses",
    {
        "service": described(TEXT, "SERVICE or APP/SERVICE"),
        "app": TEXT,
        "tenant": TEXT,
        "labels": pairs("labels of services"),
        "cidr": described(TEXT, "addresses outside of the cluster, 192.0.2.0/24"),
        "except": text_or_texts("addresses within cidr that are not meant"),
    },
)
_PORTS = text_or_texts("80, 53/udp, 8000-8100 or tcp; without it all")


def _rules(word: str, description: str) -> Schema:
    return items(mapping("a rule", {word: items(_PEER), "ports": _PORTS}), description)


def _affinities(description: str) -> Schema:
    return items(
        mapping(
            "",
            {
                "service": described(TEXT, "tasks of this service of the app"),
                "constraint": described(TEXT, 'hosts, as "node.labels.disk == ssd"'),
                "same": described(TEXT, "what must be the same: host, or a property such as node.labels.zone"),
                "required": FLAG,
                "weight": described(COUNT, "1 to 100"),
            },
        ),
        description,
    )


_INIT_TASK = mapping(
    "runs to its end before the container, with its mounts and network",
    {
        "image": described(TEXT, "the service's, where it is left out"),
        "entrypoint": text_or_texts("in place of the image's"),
        "command": text_or_texts("in place of the image's"),
        "user": TEXT,
        "working_dir": TEXT,
        "environment": pairs("besides those of the service"),
    },
)
SERVICE = mapping(
    "what Compose has no keys for",
    {
        "autoscale": AUTOSCALE,
        "devices": ASKED,
        "balance": mapping(
            "how connections are spread over the tasks",
            {
                "policy": choice(["random", "round-robin", "weighted", "source-hash", "least-loaded"]),
                "local_first": described(FLAG, "tasks on the client's host, then in its zone, while there are any"),
                "weights": items(
                    mapping("", {"constraint": TEXT, "weight": COUNT}, required=["constraint", "weight"]),
                    "of tasks by their hosts; the first constraint that holds counts",
                ),
                "load": choice(["connections", "cpu"], "what least-loaded measures"),
            },
        ),
        "floating_addresses": items(TEXT, "outside addresses, each held by one healthy host at a time"),
        "policy": mapping(
            "who may reach the service, and whom it may reach",
            {
                "ingress": _rules("from", "who may reach it; an empty list: nobody"),
                "egress": _rules("to", "whom it may reach; an empty list: nobody"),
                "dry_run": described(FLAG, "only count what would be refused"),
            },
        ),
        "disruption_budget": mapping(
            "how many tasks may be missing because of drains, preemption and rebalancing; one of the two",
            {
                "max_unavailable": described(COUNT, 'a number of tasks, or a share like "25%"'),
                "min_available": described(COUNT, 'a number of tasks, or a share like "50%"'),
            },
        ),
        "placement": mapping(
            "where tasks go besides constraints",
            {
                "strategy": choice(["spread", "pack"]),
                "affinity": _affinities("what tasks are to be near"),
                "anti_affinity": _affinities("what tasks are to be away from"),
            },
        ),
        "probes": PROBES,
        "priority": described(COUNT, "-1000 to 1000, 0 if not said: who is placed first, and stopped for whom"),
        "preempt": described(FLAG, "false: no task of lower priority is stopped for its own"),
        "group": described(TEXT, "tasks of the app's services with the same group are placed together or not at all"),
        "rollout": mapping(
            "how a new version comes in, besides deploy.update_config",
            {
                "strategy": choice(["rolling", "canary", "blue-green"]),
                "steps": items(
                    mapping(
                        "",
                        {
                            "share": described(TEXT, 'of the tasks, like "10%"'),
                            "tasks": COUNT,
                            "wait": described(TEXT, "a duration, or: by hand"),
                        },
                    ),
                    "of a canary",
                ),
                "check": CHECK,
                "keep": described(DURATION, "how long the old tasks of a blue/green change stay"),
            },
        ),
        "init_tasks": items(_INIT_TASK, "what runs to its end before each task, in order"),
        "job": mapping(
            "of deploy.mode replicated-job and global-job",
            {
                "parallelism": described(COUNT, "tasks at a time"),
                "deadline": described(DURATION, "of a run; then its tasks are stopped"),
                "keep": described(COUNT, "runs that are kept"),
            },
        ),
        "schedule": mapping(
            "when a job runs by itself",
            {
                "cron": described(TEXT, 'five fields, "0 3 * * *"'),
                "time_zone": described(TEXT, "such as Europe/Berlin; UTC where it is left out"),
                "missed": choice(["skip", "run_once"], "of moments at which nothing could be run"),
                "overlap": choice(["forbid", "allow", "replace"], "where the run before is not over"),
            },
            required=["cron"],
        ),
        "stateful": either(
            FLAG,
            mapping(
                "slots have volumes of their own and one task at a time",
                {"order": choice(["ordered", "unordered"], "in which tasks start and stop")},
            ),
        ),
    },
)
NETWORK = mapping(
    "what Compose has no keys for",
    {"default": choice(["open", "closed"], "closed: members reach each other only where a policy says so")},
)
