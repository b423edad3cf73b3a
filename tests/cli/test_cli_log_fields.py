"""Lines that are JSON objects: which a filter wants, and what is printed of them."""

from __future__ import annotations

import pytest

from cli import log_fields

LINE = b'{"level": "error", "http": {"status": 500}, "a.b": true, "msg": "it broke"}'


@pytest.mark.parametrize(
    ("filters", "wanted"),
    [
        ([], True),
        (["level=error"], True),
        (["level=error", "http.status=500", "a.b=true"], True),
        (["level=error", "http.status=200"], False),
        (["http.status!=200"], True),
        (["nothing="], True),
        (["level!=error"], False),
        (["msg=it broke"], True),
        (["level.deeper=error"], False),
    ],
)
def test_a_line_is_wanted_when_all_filters_hold(filters: list[str], wanted: bool) -> None:
    found = log_fields.object_of(LINE)
    assert log_fields.matches(found, [log_fields.parse_filter(text) for text in filters]) is wanted


@pytest.mark.parametrize("text", [b"", b"plain", b"[1]", b"{broken", b"12", b'{"a": "\xff"}'])
def test_other_lines_have_no_fields(text: bytes) -> None:
    assert log_fields.object_of(text) is None
    assert not log_fields.matches(None, [log_fields.parse_filter("level=error")])
    assert log_fields.matches(None, [log_fields.parse_filter("level!=error")])


@pytest.mark.parametrize("text", ["level", "=error", "!=x", ""])
def test_what_is_no_filter_is_said(text: str) -> None:
    with pytest.raises(ValueError, match="FIELD=VALUE"):
        log_fields.parse_filter(text)
