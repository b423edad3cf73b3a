"""The JSON schema of devices by CDI: `gpus`, `reservations.devices` and `x-fairway.devices`."""

from __future__ import annotations

from cli.compose.schema_types import COUNT, TEXT, described, either, items, mapping, pairs, text_or_texts

_COUNT = described(COUNT, "or all")
_RESERVED = mapping(
    "devices of the task's host",
    {
        "driver": described(TEXT, "nvidia, amd, intel, cdi, or a kind of CDI device such as vendor.com/class"),
        "count": _COUNT,
        "device_ids": items(TEXT, "just these, in place of a count"),
        "capabilities": items(TEXT, "such as gpu"),
        "options": mapping("none: a CDI specification on the host says how a device is given", {}),
    },
)
GPUS = either(described(TEXT, "a number, or all"), items(_RESERVED))
RESERVED = items(_RESERVED, "devices that the task has for itself, unless their specification shares them")
ASKED = items(
    mapping(
        "devices of one kind",
        {
            "kind": described(TEXT, "of CDI, such as nvidia.com/gpu"),
            "count": described(COUNT, "or all; 1 where it is left out"),
            "names": text_or_texts("just these, in place of a count"),
            "properties": pairs('annotations that they have, also as "model == A100"'),
        },
        required=["kind"],
    ),
    "devices that hosts have CDI specifications of",
)
