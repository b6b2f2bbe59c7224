"""The official JavaScript client of A2A, from npm, before a gateway."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest
from mqtt_agent import Agent
from node import Node

from .conftest import MakeGateway

pytestmark = pytest.mark.long

PEERS = Path(__file__).parent / "peers"


@pytest.fixture(scope="session")
def client() -> list[str]:
    Node.require(PEERS, "the client from npm")
    return Node.command(PEERS / "client.mjs")


def text_of(task: dict[str, Any]) -> str:
    return task["artifacts"][0]["parts"][0]["content"]["value"]


@pytest.mark.timeout(300)
async def test_the_javascript_client_sends_streams_and_answers(
    client: list[str], worker: Agent, make_gateway: MakeGateway
) -> None:
    served = await make_gateway()
    process = await asyncio.create_subprocess_exec(*client, f"{served.url}/agents/worker", stdout=-1, stderr=-1)
    out, err = await asyncio.wait_for(process.communicate(), 60)
    assert process.returncode == 0, err.decode()
    told = json.loads(out)
    assert text_of(told["hello"]) == "hello by alice"
    kinds = [event["payload"]["$case"] for event in told["stream"]]
    assert (kinds[0], kinds.count("artifactUpdate"), kinds[-1]) == ("task", 3, "statusUpdate")
    assert told["asked"]["status"]["state"] == told["states"]["auth"]
    assert (told["answered"]["status"]["state"], text_of(told["answered"])) == (
        told["states"]["completed"],
        "token abc",
    )
