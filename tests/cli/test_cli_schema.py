"""The JSON schema of Compose files says what the parser takes: no more, no less."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar

import pytest
from ruamel.yaml import YAML

from cli.commands import schema as command
from cli.compose import document, extension, placement, project, schema
from cli.compose.problems import ComposeRefused
from cli.compose.reader import Field, Reader
from tests.cli.conftest import Ended
from tests.cli.test_cli_compose_examples import FILES, REFUSED

T = TypeVar("T")
PUBLISHED = Path(__file__).parents[2] / "docs" / "compose.schema.json"
NAME = "name"  # of whatever people give names to
# Words that a value must be for the parser to look at what is beside it.
TELLING = {"type": "volume", "constraint": "node.role == worker", "target": "/x", "cron": "* * * * *"}
# What is settled before the reader sees it.
MERGED = {"include[]", "services.name.extends"}


def sample(part: Mapping[str, Any], key: str, path: str, seen: dict[str, frozenset[str]]) -> Any:
    """A value that has every key of this part of the schema; `seen` gets the keys of each mapping."""
    if "anyOf" in part:
        alternatives = [each for each in part["anyOf"] if "object" in types(each) or "array" in types(each)]
        best = max(
            alternatives or part["anyOf"], key=lambda each: ("properties" in json.dumps(each), "array" in types(each))
        )
        return sample(best, key, path, seen)
    if "enum" in part:
        return TELLING.get(key, part["enum"][0])
    if "properties" in part:
        if path != "services.name.ulimits":  # names of the kernel, not keys
            seen[path] = frozenset(part["properties"])
        before = f"{path}." if path else ""
        return {name: sample(each, name, f"{before}{name}", seen) for name, each in part["properties"].items()}
    if "object" in types(part):
        below = part.get("additionalProperties")
        return {NAME: sample(below, NAME, f"{path}.{NAME}", seen)} if isinstance(below, dict) else {}
    if "array" in types(part):
        return [sample(part["items"], key, f"{path}[]", seen)]
    return TELLING.get(key, "1")


def types(part: Mapping[str, Any]) -> list[str]:
    found = part.get("type", [])
    return [found] if isinstance(found, str) else list(found)


class Recorder(Reader):
    """Notes which keys the parser knows, and which words."""

    keys: dict[str, frozenset[str]]
    words: dict[str, frozenset[str]]

    def known_entries(
        self, field: Field, known: frozenset[str], hints: Mapping[str, str] | None = None
    ) -> dict[str, Field]:
        path = re.sub(r"\[\d+\]", "[]", field.path)
        type(self).keys[path] = type(self).keys.get(path, frozenset()) | known
        return super().known_entries(field, known, hints)

    def choice(self, field: Field, choices: Mapping[str, T], otherwise: T) -> T:
        type(self).words[re.sub(r"\[\d+\]", "[]", field.path)] = frozenset(choices)
        return super().choice(field, choices, otherwise)


def test_every_mapping_has_the_same_keys_in_the_schema_and_in_the_parser(monkeypatch: pytest.MonkeyPatch) -> None:
    in_schema: dict[str, frozenset[str]] = {}
    everything = sample(schema.schema(), "", "", in_schema)
    del everything["include"], everything["services"][NAME]["extends"]
    Recorder.keys, Recorder.words = {}, {}
    monkeypatch.setattr(project, "Reader", Recorder)
    with pytest.raises(ComposeRefused) as refused:  # not everything makes sense together
        project.parse(json.dumps(everything), "f", Path("/nowhere"), {})
    unknown = [each for each in refused.value.problems if each.message.startswith("is not supported by Fairway")]
    assert unknown == []
    expected = {path: keys for path, keys in in_schema.items() if path not in MERGED}
    expected[""] -= {"include"}
    expected["services.name"] -= {"extends"}
    assert Recorder.keys == expected
    said = words_of(schema.schema(), "")
    assert {path: said.get(path) for path in Recorder.words} == Recorder.words
    service = "services.name"
    others: dict[str, Mapping[str, object]] = {
        f"{service}.x-fairway.balance.policy": extension._POLICIES,
        f"{service}.x-fairway.balance.load": extension._LOADS,
        f"{service}.deploy.restart_policy.condition": placement._RESTART,
    }
    assert {path: said[path] for path in others} == {path: frozenset(words) for path, words in others.items()}


def words_of(part: Mapping[str, Any], path: str) -> dict[str, frozenset[str]]:
    """The words that the schema names, by path."""
    found: dict[str, frozenset[str]] = {}
    if "enum" in part:
        found[path] = frozenset(part["enum"])
    for each in part.get("anyOf", ()):
        found |= words_of(each, path)
    for name, each in part.get("properties", {}).items():
        found |= words_of(each, f"{path}.{name}" if path else name)
    if isinstance(part.get("additionalProperties"), dict):
        found |= words_of(part["additionalProperties"], f"{path}.{NAME}")
    if "items" in part:
        found |= words_of(part["items"], f"{path}[]")
    return found


def faults(value: Any, part: Mapping[str, Any], path: str = "") -> list[str]:
    """What JSON Schema says against a value: the keywords that the schema uses."""
    if "anyOf" in part:
        tried = [faults(value, each, path) for each in part["anyOf"]]
        return [] if [] in tried else min(tried, key=len)
    if "enum" in part and value not in part["enum"]:
        return [f"{path}: {value!r} is none of {part['enum']}"]
    kinds = {dict: "object", list: "array", str: "string", bool: "boolean", int: "integer", float: "number"}
    kind = "null" if value is None else kinds[type(value)]
    if types(part) and kind not in types(part) and not (kind == "integer" and "number" in types(part)):
        return [f"{path}: is {kind}"]
    if "pattern" in part and not re.search(part["pattern"], value):
        return [f"{path}: has another pattern"]
    found = []
    if isinstance(value, dict):
        found += [f"{path}: has no {name}" for name in part.get("required", ()) if name not in value]
        for name, below in value.items():
            rules = [part["properties"][name]] if name in part.get("properties", {}) else []
            rules += [rule for pattern, rule in part.get("patternProperties", {}).items() if re.search(pattern, name)]
            more = part.get("additionalProperties", True)
            if not rules and more is False:
                found.append(f"{path}.{name}: is not known")
            for rule in rules or ([more] if isinstance(more, dict) else []):
                found += faults(below, rule, f"{path}.{name}")
    if isinstance(value, list) and "items" in part:
        for below in value:
            found += faults(below, part["items"], f"{path}[]")
    return found


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_what_the_parser_takes_the_schema_takes(path: Path) -> None:
    text = path.read_text()
    found = faults(YAML(typ="safe", pure=True).load(re.sub("!(override|reset) ", "", text)), schema.schema())
    refused = REFUSED.findall(text)
    if not refused:
        assert found == []
    elif "is not supported by Fairway" in text:
        assert found


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("{services: {a: {image: a, x-fairway: {balance: {policy: fair}}}}}", "'fair' is none of"),
        ("{services: {a: {image: a, x-fairway: {balanse: {}}}}}", ".balanse: is not known"),
        ("{services: {a: {image: a, privileged: true}}}", ".privileged: is not known"),
        ("{services: {a: {image: a, ulimits: {frob: 1}}}}", ".frob: is not known"),
        ("{services: {a: {image: a, x-fairway: {schedule: {}}}}}", "has no cron"),
        ("{networks: {a: {x-fairway: {default: ajar}}}}", "'ajar' is none of"),
        ("{services: {a: {image: a, cap_add: ALL}}}", "is string"),
    ],
)
def test_what_the_schema_refuses(text: str, fault: str) -> None:
    assert fault in "".join(faults(YAML(typ="safe", pure=True).load(text), schema.schema()))


def test_a_variable_may_stand_for_a_word() -> None:
    text = "{services: {a: {image: a, deploy: {endpoint_mode: '${MODE}', replicas: '${N}'}, init: '${INIT}'}}}"
    assert faults(YAML(typ="safe", pure=True).load(text), schema.schema()) == []


def test_the_schema_is_printed_and_published(fairway: Callable[..., Ended]) -> None:
    ended = fairway("schema", "compose")
    assert ended.code == 0
    assert json.loads(ended.out)["$schema"].startswith("http://json-schema.org/draft-07")
    assert ended.out == command.text()
    assert PUBLISHED.read_text() == ended.out, "write it anew: fairway schema compose > docs/compose.schema.json"
    assert len(ended.out) < document.FILE_BYTES_MAX
