"""Why a proposal or a read was not served, and why a member takes no part in consensus any more."""

from __future__ import annotations


class NotServed(Exception):
    """The member could not do what was asked of it."""


class NotLeader(NotServed):
    """Only the leader can; nothing was changed. `leader_id` is who leads, None where that is not known."""

    def __init__(self, leader_id: str | None) -> None:
        known = f"{leader_id} does" if leader_id else "no leader is known at the moment"
        super().__init__(f"this host does not lead the cluster: {known}")
        self.leader_id = leader_id


class Unavailable(NotServed):
    """Nothing was changed: no majority is heard, too much is waiting, or the member has stopped."""


class Ambiguous(NotServed):
    """It may happen or not: retry with the same request id, which makes a repeat harmless."""


class Refused(NotServed):
    """A change of the membership that is not possible now; the message says what to do."""


class MemberFault(Exception):
    """This member must stop taking part: going on could lose or fork the cluster's state."""


class DiskFull(MemberFault):
    """Nothing was written: the member starts again from disk when there is room."""
