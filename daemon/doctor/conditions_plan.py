"""From what hosts report to the conditions in the store: only changes are written, and not too many. Pure."""

from __future__ import annotations

from collections.abc import Collection, Iterable

from proto import objects_pb2 as objects

CONDITIONS_MAX = 32  # of one host; the rest is counted
MESSAGE_CHARACTERS_MAX = 300
MORE = "more"
PATH_KINDS = ("underlay path", "underlay loss", "overlay path", "overlay loss", "overlay MTU")


def merged(
    before: Iterable[objects.NodeCondition],
    reported: Iterable[objects.NodeCondition],
    down: Collection[str],
    now_unix_ms: int,
) -> list[objects.NodeCondition]:
    """The conditions of one host after its report, in a fixed order, each with the time since when it holds.

    A path to a host that is down (`down`: node ids) is no news. Messages alone do not make a condition a new one.
    """
    since = {(each.kind, each.node_id): each.since_unix_ms for each in before}
    kept: dict[tuple[str, str], objects.NodeCondition] = {}
    for each in reported:
        if each.node_id in down and each.kind in PATH_KINDS:
            continue
        key = (each.kind, each.node_id)
        kept[key] = objects.NodeCondition(
            kind=each.kind,
            node_id=each.node_id,
            message=each.message[:MESSAGE_CHARACTERS_MAX],
            since_unix_ms=since.get(key) or now_unix_ms,
        )
    found = [kept[key] for key in sorted(kept)]
    if len(found) <= CONDITIONS_MAX:
        return found
    left_out = len(found) - CONDITIONS_MAX + 1
    more = objects.NodeCondition(
        kind=MORE, message=f"{left_out} more conditions", since_unix_ms=since.get((MORE, "")) or now_unix_ms
    )
    return [*found[: CONDITIONS_MAX - 1], more]
