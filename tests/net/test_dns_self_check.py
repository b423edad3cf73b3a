"""When the host's own questions stay without an answer: said each time, and served anew after some."""

from __future__ import annotations

import pytest
import trio

from net import path_attempts
from net.differences import DNS, Difference
from net.dns_self_check import FAILURES_UNTIL_RESTART, DnsSelfCheck
from proto.doctor_pb2 import NameAnswer


def test_silence_is_a_difference_and_the_server_is_made_anew_after_some(monkeypatch: pytest.MonkeyPatch) -> None:
    codes: list[str] = []

    async def resolve(*_: object) -> NameAnswer:
        await trio.lowlevel.checkpoint()
        return NameAnswer(code=codes.pop(0))

    monkeypatch.setattr(path_attempts, "resolve", resolve)
    check = DnsSelfCheck()

    async def restarts(*given: str) -> list[bool]:
        codes[:] = given
        found = [await check.check("fairway.internal") for _ in given]
        for (words, _), code in zip(found, given, strict=True):
            assert [each.kind for each in words if isinstance(each, Difference)] == ([] if code else [DNS])
        return [restart for _, restart in found]

    assert FAILURES_UNTIL_RESTART == 2
    assert trio.run(restarts, "NOERROR", "", "NXDOMAIN", "", "", "", "", "SERVFAIL") == [
        False,
        False,
        False,
        False,
        True,
        False,
        True,
        False,
    ]


def test_nothing_is_asked_where_the_cluster_has_no_zone() -> None:
    assert trio.run(DnsSelfCheck().check, "") == ([], False)
