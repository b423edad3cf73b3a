"""Who a process runs as: names resolved in the image's own /etc/passwd and /etc/group. Pure."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable
from dataclasses import dataclass

from runtime.errors import InvalidRequest

ID_MAX = 2**31 - 1


@dataclass(frozen=True)
class ProcessUser:
    uid: int
    gid: int
    additional_gids: tuple[int, ...] = ()
    home: str = "/"


def resolve(text: str, passwd: str, group: str) -> ProcessUser:
    """`text` is "", "name", "uid", "name:group" or "uid:gid"; "" is root.

    `passwd` and `group` are the contents of the image's files, "" where it has none (passwd(5), group(5)).
    A number need not be listed; a name must. Without a group the user's own one and all groups that list
    the user apply; with one only that applies. Raises InvalidRequest.
    """
    user_text, colon, group_text = (text or "0").partition(":")
    rows = [row for row in _rows(passwd, 6) if row[2].isdigit() and row[3].isdigit()]
    users = [(row[0], int(row[2]), int(row[3]), row[5]) for row in rows]
    groups = [(row[0], int(row[2]), row[3].split(",")) for row in _rows(group, 4) if row[2].isdigit()]
    entry = next((user for user in users if user[0] == user_text), None)
    if entry is None and user_text.isdigit():
        entry = next((user for user in users if user[1] == int(user_text)), None)
        uid = _checked(int(user_text), text)
    elif entry is None:
        raise InvalidRequest(f"user {text!r}: the image's /etc/passwd has no user {user_text!r}")
    else:
        uid = entry[1]
    home = (entry[3] or "/") if entry else "/"
    if colon:
        found = next((row[1] for row in groups if row[0] == group_text), None)
        if found is None:
            if not group_text.isdigit():
                raise InvalidRequest(f"user {text!r}: the image's /etc/group has no group {group_text!r}")
            found = _checked(int(group_text), text)
        return ProcessUser(uid, found, (found,), home)
    gid = entry[2] if entry else 0
    further = {row[1] for row in groups if entry is not None and entry[0] in row[2]}
    return ProcessUser(uid, gid, tuple(sorted({gid} | further)), home)


def with_groups(user: ProcessUser, wanted: Iterable[str], group: str) -> ProcessUser:
    """`user` with further groups, each a name in the image's /etc/group, or a number. Raises InvalidRequest."""
    known = {row[0]: int(row[2]) for row in _rows(group, 4) if row[2].isdigit()}
    found = set(user.additional_gids)
    for text in wanted:
        if text not in known and not text.isdigit():
            raise InvalidRequest(f"group_add {text!r}: the image's /etc/group has no such group")
        found.add(known[text] if text in known else _checked(int(text), text))
    return dataclasses.replace(user, additional_gids=tuple(sorted(found)))


def _rows(content: str, fields_min: int) -> list[list[str]]:
    rows = [line.strip().split(":") for line in content.splitlines() if line and not line.startswith("#")]
    return [row for row in rows if len(row) >= fields_min]


def _checked(number: int, text: str) -> int:
    if number > ID_MAX:
        raise InvalidRequest(f"user {text!r}: {number} is above {ID_MAX}")
    return number
