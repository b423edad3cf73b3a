"""The JSON schema of `x-fairway.probes` and `x-fairway.autoscale`."""

from __future__ import annotations

from cli.compose.schema_types import COUNT, DURATION, TEXT, Schema, choice, described, mapping, pairs, text_or_texts

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
