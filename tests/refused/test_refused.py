"""A broker with which nothing can work is an error at the start that says so, and never a call that waits in vain."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from mqtt_agent import Agent, MemoryStore, ToolClient, ToolServer
from mqtt_agent.errors import MQTTAgentError
from support import soon

from .conftest import Aedes, Amqtt, Moat, Refused

StartRefused = Callable[[type[Refused]], Refused]
Endpoint = Agent | ToolClient | ToolServer
MAKE: dict[str, Callable[[str, str], Endpoint]] = {
    "client": lambda url, namespace: ToolClient("caller", broker=url, namespace=namespace),
    "server": lambda url, namespace: ToolServer("server", broker=url, namespace=namespace),
    "agent": lambda url, namespace: Agent("agent", broker=url, namespace=namespace, store=MemoryStore()),
}


async def refusal(endpoint: Endpoint) -> str:
    """The error of an endpoint's start."""
    with pytest.raises(MQTTAgentError) as refused:
        await soon(endpoint.start(), 20)
    await soon(endpoint.stop())
    return str(refused.value)


@pytest.mark.parametrize("kind", [Aedes, Amqtt], ids=lambda kind: kind.name)
@pytest.mark.parametrize("who", MAKE)
async def test_a_broker_that_does_not_speak_mqtt_5_is_refused(
    start_refused: StartRefused, kind: type[Refused], who: str, namespace: str
) -> None:
    broker = start_refused(kind)
    told = await refusal(MAKE[who](broker.url, namespace))
    assert broker.url in told
    assert "use a broker that speaks MQTT 5" in told


@pytest.mark.parametrize("who", MAKE)
async def test_a_broker_without_the_sessions_and_qualities_of_mqtt_5_is_refused(
    start_refused: StartRefused, who: str, namespace: str
) -> None:
    broker = start_refused(Moat)
    told = await refusal(MAKE[who](broker.url, namespace))
    assert broker.url in told
    assert "use another broker" in told
