"""The JSON schema of `x-fairway.probes`, `x-fairway.autoscale` and `x-fairway.rollout.check`."""

from __future__ import annotations

from cli.compose.schema_types import (
    COUNT,
    DURATION,
    FLAG,
    NUMBER,
    TEXT,
    Schema,
    choice,
    described,
    either,
    mapping,
    pairs,
    text_or_texts,
)

_PORT = described(COUNT, "of the task")
_SCHEME = choice(["http", "https"], "the certificate is not checked")


def _probe(description: str) -> Schema:
    return mapping(
        description + "; exactly one of http, tcp, grpc and exec",
        {
            "http": mapping(
                "GET",
                {
                    "port": _PORT,
                    "path": TEXT,
                    "headers": pairs("of the request"),
                    "expect": described(TEXT, 'a status or a range; "200-399" where it is left out'),
                    "scheme": _SCHEME,
                },
                required=["port"],
            ),
            "tcp": mapping("passes where a connection is taken", {"port": _PORT}, required=["port"]),
            "grpc": mapping(
                "grpc.health.v1.Health",
                {"port": _PORT, "service": described(TEXT, "empty: the server as a whole"), "scheme": _SCHEME},
                required=["port"],
            ),
            "exec": text_or_texts("a command in the container, or a line for its shell"),
            "interval": DURATION,
            "timeout": DURATION,
            "failures": described(COUNT, "in a row, that make it fail"),
            "successes": described(COUNT, "in a row, that make it pass after it failed"),
        },
    )


PROBES = mapping(
    "how tasks are asked how they are, besides healthcheck",
    {
        "start": _probe("until it has passed no other is made; failing: the task is replaced"),
        "live": _probe("failing: the task is replaced"),
        "ready": _probe("failing: no traffic until it passes again"),
    },
)

AUTOSCALE = mapping(
    "the number of tasks follows their load; of several measures the one that asks for most tasks counts",
    {
        "min": described(COUNT, "tasks; 1 where it is left out"),
        "max": described(COUNT, "tasks"),
        "cpu": described(TEXT, 'of what a task reserves, or else may use: "70%"'),
        "memory": described(TEXT, 'of what a task reserves, or else may use: "80%"'),
        "connections": described(COUNT, "TCP connections of clients to a task"),
        "metric": mapping(
            "in Prometheus' text, asked of each task",
            {
                "port": _PORT,
                "path": described(TEXT, "/metrics where it is left out"),
                "name": described(TEXT, "its samples are added up"),
                "labels": pairs("of samples that count"),
                "target": described(NUMBER, "of a task"),
                "per_second": described(FLAG, "how fast a counter grows counts, rather than its value"),
            },
            required=["port", "name", "target"],
        ),
        "stabilisation": described(DURATION, "before tasks are taken away; 5m where it is left out"),
        "up_stabilisation": described(DURATION, "before tasks are added; none where it is left out"),
    },
    required=["max"],
)
CHECK = mapping(
    "of a canary: a metric of its new tasks, in Prometheus' text; more than max for a while, and it goes back",
    {
        "port": _PORT,
        "path": described(TEXT, "/metrics where it is left out"),
        "name": described(TEXT, "its samples are added up"),
        "labels": pairs("of samples that count"),
        "per_second": described(FLAG, "how fast counters grow counts, rather than their value"),
        "of": either(TEXT, mapping("what it is a share of", {"name": TEXT, "labels": pairs("")}, required=["name"])),
        "max": described(NUMBER, 'of a task, on average; with of: a share like "1%"'),
    },
    required=["port", "name", "max"],
)
