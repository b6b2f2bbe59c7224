"""Whatever schema a server publishes, a model can be given its tool."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import jsonschema_rs
import pytest
from brokers import Embedded
from langchain_core.tools import StructuredTool
from langchain_core.utils.function_calling import convert_to_openai_tool
from langchain_mqtt_agent import MQTTToolkit
from mqtt_agent import ToolServer
from mqtt_agent.adapting.schemas import speakable, without_nulls
from support import soon

DATA = json.loads((Path(__file__).parent / "data" / "mcp_tools.json").read_text())
REAL = [(server["package"], tool["name"], tool["schema"]) for server in DATA["servers"] for tool in server["tools"]]

LIST = {"$ref": "#/$defs/list"}
ODD: dict[str, dict[str, Any]] = {
    "empty": {},
    "no_properties": {"type": "object"},
    "properties_null": {"type": "object", "properties": None},
    "references": {
        "type": "object",
        "properties": {"a": {"$ref": "#/$defs/a", "description": "An a"}, "b": {"$ref": "#/properties/a"}},
        "$defs": {"a": {"type": "object", "properties": {"x": {"type": "integer"}}}},
    },
    "recursive": {
        "type": "object",
        "properties": {"list": LIST},
        "$defs": {"list": {"type": "object", "properties": {"value": {"type": "integer"}, "rest": LIST}}},
    },
    "refers_to_itself": {"type": "object", "properties": {"child": {"$ref": "#"}}},
    "dangling": {"type": "object", "properties": {"a": {"$ref": "#/$defs/none"}}},
    "foreign": {"type": "object", "properties": {"a": {"$ref": "https://example.com/schema"}}},
    "nullable": {
        "type": "object",
        "properties": {"a": {"type": ["string", "null"]}, "b": {"anyOf": [{}, {"type": "null"}]}},
    },
    "enums": {"type": "object", "properties": {"a": {"enum": [1, None, "x", {"y": 2}]}, "b": {"const": 3}}},
    "nested_arrays": {
        "type": "object",
        "properties": {"a": {"type": "array", "items": {"type": "array", "items": {"type": "array", "items": {}}}}},
    },
    "tuples": {"type": "object", "properties": {"a": {"prefixItems": [{"type": "integer"}, {"type": "string"}]}}},
    "booleans": {"type": "object", "properties": {"a": True, "b": False}, "additionalProperties": False},
    "all_of": {"allOf": [{"properties": {"a": {"type": "string"}}}, {"required": ["a"]}]},
    "one_of": {"oneOf": [{"type": "object", "properties": {"a": {}}}, {"type": "object", "properties": {"b": {}}}]},
    "conditions": {"type": "object", "properties": {"a": {}}, "if": {"required": ["a"]}, "then": {"required": ["b"]}},
    "names_that_are_keywords": {
        "type": "object",
        "properties": {name: {"type": "string"} for name in ("properties", "type", "title", "$defs", "default")},
    },
    "titles": {"title": "T", "type": "object", "properties": {"title": {"title": "U", "type": "string"}}},
    "no_type": {"properties": {"a": {"description": "anything"}}},
    "references_in_values": {
        "type": "object",
        "properties": {
            "a": {"default": {"$ref": "https://example.com/schema"}, "description": "A schema"},
            "b": {"examples": [{"items": {"$ref": "#/none"}}], "const": {"$ref": 7}, "enum": [[{"$ref": {}}]]},
        },
    },
    "argument_named_ref": {
        "type": "object",
        "properties": {"$ref": {"type": "string"}, "a": {"properties": {"$ref": True}, "required": ["$ref"]}},
        "required": ["$ref", "a"],
        "dependentRequired": {"$ref": ["a"]},
    },
}


@pytest.fixture(scope="module")
def told() -> Any:
    """All schemas as tools of a server: for each tool, its OpenAI form, its schema and LangChain's arguments."""
    everything = {f"real{n}": schema for n, (_, _, schema) in enumerate(REAL)} | ODD
    with Embedded() as broker:
        return _told(broker, everything)


def _told(broker: Embedded, everything: dict[str, dict[str, Any]]) -> dict[str, Any]:
    import anyio

    found: dict[str, Any] = {}

    async def serve() -> None:
        server = ToolServer("server", broker=broker.url)
        for name, schema in everything.items():
            try:
                server.add_tool(name, _handler, input_schema=schema)
            except ValueError:  # our own server refuses this schema, but another server may publish it
                tool = StructuredTool(name=name, description=name, args_schema=speakable(schema), func=_handler)
                found[name] = convert_to_openai_tool(tool)["function"]["parameters"]
        async with server, MQTTToolkit(broker=broker.url) as toolkit:
            for tool in await toolkit.aget_tools():
                found[tool.name] = convert_to_openai_tool(tool)["function"]["parameters"]
                assert isinstance(tool.args, dict)

    anyio.run(serve)
    return found


async def _handler(arguments: dict[str, Any]) -> str:
    return "ok"


@pytest.mark.parametrize("name", ODD)
def test_odd_schemas_can_be_told(told: dict[str, Any], name: str) -> None:
    assert told[name]["type"] == "object"
    assert isinstance(told[name]["properties"], dict)
    json.dumps(told[name])


def test_schemas_of_real_mcp_tools_can_be_told_and_take_the_same(told: dict[str, Any]) -> None:
    assert len(REAL) > 100
    assert len({package for package, _, _ in REAL}) == 10
    for number, (package, name, schema) in enumerate(REAL):
        parameters = told[f"real{number}"]
        where = f"{package} {name}"
        assert set(parameters["properties"]) == set(schema.get("properties") or {}), where
        assert parameters.get("required", []) == schema.get("required", []), where
        assert "$ref" not in json.dumps(parameters), where
        jsonschema_rs.validator_for(parameters)


def test_references_are_written_out(told: dict[str, Any]) -> None:
    assert told["references"]["properties"]["a"]["properties"]["x"] == {"type": "integer"}
    assert told["references"]["properties"]["a"]["description"] == "An a"
    assert told["recursive"]["properties"]["list"]["properties"]["rest"] == {"type": "object"}
    assert set(told["names_that_are_keywords"]["properties"]) >= {"properties", "type", "title", "default"}
    assert told["titles"]["properties"].keys() == {"title"}


def test_no_value_and_no_argument_is_taken_for_a_reference(told: dict[str, Any]) -> None:
    assert told["references_in_values"]["properties"] == {"a": {"description": "A schema"}, "b": {}}
    parameters = told["argument_named_ref"]
    assert parameters["properties"] == {"a": {"properties": {}, "required": []}}
    assert parameters["required"] == ["a"]


def test_a_schema_that_explodes_stays_small() -> None:
    levels = {
        f"l{n}": {"type": "array", "items": {"$ref": f"#/$defs/l{n + 1}"}, "contains": {"$ref": f"#/$defs/l{n + 1}"}}
        for n in range(60)
    }
    levels["l60"] = {"type": "integer"}
    small = speakable({"type": "object", "properties": {"a": {"$ref": "#/$defs/l0"}}, "$defs": levels})
    assert len(json.dumps(small)) < 200_000


async def test_a_schema_that_providers_refuse_is_told_once_and_can_be_made_to_fit(
    embedded: Embedded, namespace: str, caplog: pytest.LogCaptureFixture
) -> None:
    server = ToolServer("server", broker=embedded.url, namespace=namespace)
    choice = [{"properties": {name: {"type": "string"}}, "required": [name]} for name in ("content", "url")]
    server.add_tool("attach", _handler, description="Attaches.", input_schema={"type": "object", "anyOf": choice})
    server.add_tool("fine", _handler, input_schema={"type": "object", "properties": {"a": {"type": "string"}}})
    async with server:
        async with MQTTToolkit(broker=embedded.url, namespace=namespace) as toolkit:
            for _ in range(2):
                assert len(await toolkit.aget_tools()) == 2
        told = [record.getMessage() for record in caplog.records if "provider may refuse" in record.getMessage()]
        assert ["'attach'" in told[0], "anyOf at the top level" in told[0], len(told)] == [True, True, 1]
        caplog.clear()
        async with MQTTToolkit(broker=embedded.url, namespace=namespace, schema_for="anthropic") as toolkit:
            attach = next(tool for tool in await toolkit.aget_tools() if tool.name == "attach")
            function = convert_to_openai_tool(attach)["function"]
            assert set(function["parameters"]) == {"type", "properties"}
            assert function["description"] == ("Attaches. Give the arguments of one of these groups: content; url.")
            assert await attach.ainvoke({"url": "x"}) == "ok"
        assert not [record for record in caplog.records if "provider" in record.getMessage()]


def test_only_a_null_that_means_nothing_is_left_out_of_the_arguments() -> None:
    schema = {
        "type": "object",
        "properties": {
            "needed": {"type": "string"},
            "text": {"type": "string"},
            "either": {"anyOf": [{"type": "string"}, {"type": "null"}]},
            "listed": {"enum": ["a", None]},
            "named": {"$ref": "#/$defs/named"},
            "any": {},
        },
        "required": ["needed"],
    }
    given: dict[str, Any] = dict.fromkeys([*schema["properties"], "unknown"])
    assert set(without_nulls(schema, given)) == set(given) - {"text"}
    assert without_nulls(schema, {"text": "", "needed": "x"}) == {"text": "", "needed": "x"}
    assert without_nulls({}, {"text": None}) == {"text": None}


async def test_a_model_may_write_null_for_an_argument_that_it_leaves_out(embedded: Embedded, namespace: str) -> None:
    server = ToolServer("greeter", broker=embedded.url, namespace=namespace)

    @server.tool
    def greet(name: str, title: str = "Ms") -> str:
        return f"Hello {title} {name}"

    async with server, MQTTToolkit(broker=embedded.url, namespace=namespace) as toolkit:
        [tool] = await soon(toolkit.aget_tools())
        assert await soon(tool.ainvoke({"name": "Lovelace", "title": None})) == "Hello Ms Lovelace"
