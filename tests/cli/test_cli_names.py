"""The Compose keys for name servers and hosts files: what they become, and how they are refused."""

from __future__ import annotations

import pytest

from tests.cli.test_cli_compose import problems, service


def test_one_value_or_a_list() -> None:
    spec = service("dns: 192.0.2.1\ndns_search: example.com.\ndns_opt: [rotate, 'ndots:2']").container
    assert list(spec.dns_servers) == ["192.0.2.1"]
    assert list(spec.dns_search) == ["example.com"]
    assert list(spec.dns_options) == ["rotate", "ndots:2"]
    spec = service("dns: [192.0.2.1, '2001:db8::1']\ndns_search: ['.']").container
    assert list(spec.dns_servers) == ["192.0.2.1", "2001:db8::1"]
    assert list(spec.dns_search) == ["."]


@pytest.mark.parametrize(
    "text",
    [
        "extra_hosts: ['a:192.0.2.1', 'b=2001:db8::1', 'c:2001:db8::2', 'd=[::1]', 'e:host-gateway']",
        "extra_hosts: {a: 192.0.2.1, b: '2001:db8::1', c: ['2001:db8::2'], d: '[::1]', e: host-gateway}",
    ],
)
def test_extra_hosts(text: str) -> None:
    found = {each.name: each.address for each in service(text).container.extra_hosts}
    assert found == {"a": "192.0.2.1", "b": "2001:db8::1", "c": "2001:db8::2", "d": "::1", "e": "host-gateway"}


@pytest.mark.parametrize(
    ("lines", "words"),
    [
        ("dns: example.com", "'example.com' is not the IP address of a name server"),
        ("dns: [192.0.2.1, 192.0.2.2, 192.0.2.3, 192.0.2.4]", "names 4 name servers; resolvers take 3 at most"),
        ("dns_search: ['a b']", "'a b' is not a domain"),
        ("dns_search: [a, b, c, d, e, f, g]", "names 7 search domains; resolvers take 6 at most"),
        ("dns_opt: ['nd ots']", "'nd ots' is not an option of resolv.conf"),
        ("extra_hosts: [db]", 'db= is not "NAME=ADDRESS"'),
        ("extra_hosts: ['db:localhost']", 'db=localhost is not "NAME=ADDRESS"'),
    ],
)
def test_what_cannot_be_is_refused_by_line(lines: str, words: str) -> None:
    found = problems(f"services:\n  web:\n    image: web\n    {lines}\n")
    assert any(words in line and "compose.yaml:4" in line for line in found), found
