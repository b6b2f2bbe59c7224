"""Input schemas that the providers of language models accept."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any, get_args

import jsonschema_rs
import pytest
from mqtt_agent.adapting.providers import Provider, fitting, troubles
from mqtt_agent.adapting.schemas import speakable

from tests.integrations.langchain.test_schemas import ODD, REAL

PROVIDERS = get_args(Provider)
TEXT: dict[str, Any] = {"type": "string"}
ATTACHMENT: dict[str, Any] = {
    "type": "object",
    "properties": {"title": TEXT},
    "required": ["title"],
    "anyOf": [
        {"type": "object", "properties": {"content": TEXT}, "required": ["content"]},
        {"type": "object", "properties": {"source_url": TEXT}, "required": ["source_url"]},
    ],
}
TREE: dict[str, Any] = {
    "type": "object",
    "$dynamicAnchor": "node",
    "properties": {"value": TEXT, "children": {"type": "array", "items": {"$dynamicRef": "#node"}}},
}
BIG: dict[str, Any] = {
    "type": "object",
    "properties": {f"p{n}": {"$ref": "#/$defs/l0"} for n in range(3)},
    "$defs": {
        **{
            f"l{n}": {"type": "object", "properties": {f"k{k}": {"$ref": f"#/$defs/l{n + 1}"} for k in range(5)}}
            for n in range(4)
        },
        "l4": TEXT,
    },
}
ALL: dict[str, dict[str, Any]] = {
    **{f"{package} {name}": schema for package, name, schema in REAL},
    **ODD,
    "attachment": ATTACHMENT,
    "tree": TREE,
    "big": BIG,
}


@pytest.mark.parametrize("provider", PROVIDERS)
def test_every_schema_can_be_made_to_fit(provider: Provider) -> None:
    for name, schema in ALL.items():
        fitted, _ = fitting(schema, provider)
        assert fitted["type"] == "object", name
        assert not set(fitted) & {"allOf", "anyOf", "oneOf", "enum", "not", "if", "then", "else", "$defs"}, name
        assert set(fitted["properties"]) >= set(schema.get("properties") or ()) - {"$ref"}, name
        assert set(fitted.get("required", ())) <= set(fitted["properties"]) or provider != "gemini", name
        text = json.dumps(fitted)
        assert "Ref" not in text, name
        assert len(text) <= 16_000, name
        jsonschema_rs.validator_for(fitted)


def nodes(schema: Any) -> Iterator[dict[str, Any]]:
    yield schema
    for part in [*schema.get("properties", {}).values(), *schema.get("anyOf", ())]:
        yield from nodes(part)
    if "items" in schema:
        yield from nodes(schema["items"])


def test_gemini_gets_only_what_its_api_knows() -> None:
    known = {"type", "properties", "required", "items", "anyOf", "enum", "title", "description", "nullable", "default"}
    known |= {"format", "minItems", "maxItems", "minLength", "maxLength", "pattern", "minimum", "maximum"}
    for name, schema in ALL.items():
        for node in nodes(fitting(schema, "gemini")[0]):
            assert set(node) <= known, (name, node)
            assert isinstance(node.get("type", ""), str), (name, node)
            assert all(isinstance(value, str) for value in node.get("enum", ())), (name, node)
            assert ("items" in node) == (node.get("type") == "array"), (name, node)
    fitted, _ = fitting(ODD["nullable"], "gemini")
    assert fitted["properties"]["a"] == {"type": "string", "nullable": True}
    fitted, _ = fitting(ODD["enums"], "gemini")
    assert fitted["properties"]["b"] == {"description": "One of [3]."}


@pytest.mark.parametrize("provider", PROVIDERS)
def test_alternatives_at_the_top_become_one_object_and_a_note(provider: Provider) -> None:
    fitted, note = fitting(ATTACHMENT, provider)
    assert set(fitted["properties"]) == {"title", "content", "source_url"}
    assert fitted["required"] == ["title"]
    assert note == "Give the arguments of one of these groups: content; source_url."
    assert fitting(ODD["all_of"], provider)[0]["required"] == ["a"]


def test_a_dynamic_reference_is_read_like_an_ordinary_one() -> None:
    assert speakable(TREE)["properties"]["children"]["items"]["properties"]["value"] == TEXT


def test_what_a_provider_may_refuse_is_named() -> None:
    def found(schema: dict[str, Any]) -> list[str]:
        return troubles(schema, speakable(schema))

    assert found(ATTACHMENT) == ["anyOf at the top level"]
    assert found(TREE) == ["a $dynamicRef, which is written as an ordinary reference"]
    assert found(BIG)[0].endswith("kB, with its references written out")
    assert found({"properties": {"größe": TEXT}}) == ["the argument name 'größe'"]
    assert found(ODD["references"]) == []
