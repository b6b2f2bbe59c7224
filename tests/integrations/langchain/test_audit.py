"""The audit of a whole system of LangChain programs names who has sent each message."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from brokers import Mosquitto
from langchain.agents import create_agent
from langchain_core.tools import tool
from langchain_mqtt_agent import MQTTRemoteAgent, MQTTToolkit, graph_agent, tool_server
from mqtt_agent import Connection
from mqtt_agent.identity import Audit, Identity, PrivateKey, TrustedKeys
from mqtt_agent.wire import Topics
from support import soon, until

from .models import calls

NAMES = ("planner", "researcher", "researcher-tools", "library", "evil")
KEYS = {name: PrivateKey.new(name) for name in NAMES}
TRUSTED = TrustedKeys(key.public for key in KEYS.values())


@tool
def find_book(topic: str) -> str:
    """Find a book."""
    return f"a book about {topic}"


def lines_of(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


async def test_the_trail_of_an_agent_that_uses_a_tool_names_the_right_sender_of_each_message(
    mosquitto: Mosquitto, namespace: str, tmp_path: Path
) -> None:
    path = tmp_path / "audit.jsonl"

    def options(name: str) -> dict[str, Any]:
        identity = Identity(KEYS[name], TRUSTED, verify="require")
        return {"broker": mosquitto.url, "namespace": namespace, "identity": identity, "audit": Audit(path)}

    topics = Topics(namespace)
    library = tool_server([find_book], "library", **options("library"))
    toolkit = MQTTToolkit(agent_id="researcher-tools", **options("researcher-tools"))
    planner = MQTTRemoteAgent("researcher", agent_id="planner", store=tmp_path / "tasks", **options("planner"))
    evil = Connection(mosquitto.url, identity=Identity(KEYS["evil"], TRUSTED))
    async with library:
        await soon(evil.start())
        tools = await soon(toolkit.aget_tools())
        graph = create_agent(calls(("find_book", {"topic": "seas"})), tools)
        async with graph_agent(graph, "researcher", store=None, **options("researcher")):
            answer = await soon(planner.ainvoke({"messages": [("user", "find a book")]}), 30)
            assert answer["messages"][-1].content == "done"
            call = {"call_id": "forged", "client": "researcher-tools", "tool": "find_book", "arguments": {"topic": "x"}}
            await soon(evil.publish(topics.bound.call("find_book", "researcher-tools"), json.dumps(call).encode()))
            await until(lambda: any(line["id"] == "forged" and line["direction"] == "in" for line in lines_of(path)))
        await soon(planner.aclose())
        await soon(toolkit.aclose())
        await soon(evil.stop())

    lines = lines_of(path)
    (forged,) = (line for line in lines if line["id"] == "forged" and line["kind"] == "call")
    assert (forged["claimed"], forged["proven"], forged["outcome"]) == ("researcher-tools", "evil", "refused")
    honest = [line for line in lines if line["id"] != "forged"]
    assert {line["outcome"] for line in honest} == {"accepted", "sent"}
    assert all(line["how"] == "signature" for line in honest)
    assert all(line["key"] == KEYS[line["proven"]].public.kid for line in honest)
    assert [line for line in honest if line["claimed"] and line["claimed"].partition(":")[0] != line["proven"]] == []
    seen = {(line["proven"], line["kind"], line["of"], line["direction"]) for line in honest}
    assert seen >= {
        ("planner", "inbox", "researcher", "out"),
        ("planner", "inbox", "researcher", "in"),
        ("researcher-tools", "call", "find_book", "out"),
        ("researcher-tools", "call", "find_book", "in"),
        ("library", "responses", "researcher-tools", "out"),
        ("library", "responses", "researcher-tools", "in"),
        ("researcher", "results", "planner", "out"),
        ("researcher", "results", "planner", "in"),
    }
    sent = {(line["proven"], line["topic"], line["id"]) for line in honest if line["direction"] == "out"}
    received = {(line["proven"], line["topic"], line["id"]) for line in honest if line["direction"] == "in"}
    assert received - sent <= {each for each in received if each[1].endswith(("/card", "/status"))}  # Last Wills
