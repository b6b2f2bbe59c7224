"""Every attempt of the attack suite at a broker without rules, against endpoints that ask for signatures.

Each attempt is made twice: without a signature, and signed by the attacker's own trusted key. docs/identity.md has the
outcomes.
"""

from __future__ import annotations

import asyncio
import json
import re
from pathlib import Path
from typing import Any

from brokers import Broker
from mqtt_agent import Connection
from mqtt_agent.endpoints.screen import screen_messages
from mqtt_agent.endpoints.senders import claimed_sender
from mqtt_agent.identity import Identity, PrivateKey, TrustedKeys
from mqtt_agent.transport import InboundMessage
from mqtt_agent.wire import Topics
from support import soon

from .attempts import PUBLISHING, ROSTER, Publishing

PAGE = (Path(__file__).parents[2] / "docs" / "identity.md").read_text()
REFUSED, ITSELF, REMOVED = "refused", "taken, in its own name", "removed, until its owner publishes it again"
REPLICA = "taken: the replicas of a server share a key"


def keys() -> tuple[dict[str, PrivateKey], TrustedKeys]:
    """A key for each program of the roster, and the public keys with the tools that the roster gives to each."""
    private = {
        each.name: PrivateKey.new(each.name, [each.hosts.partition(":")[0]] if each.hosts else [])
        for each in ROSTER.programs
    }
    return private, TrustedKeys(private[each.name].public.pinned(each.serves) for each in ROSTER.programs)


def program_of(attempt: Publishing) -> str:
    """The name of the attacker's program, whose key signs the message. Replicas and members share a key."""
    return ROSTER.login(attempt.attacker).program.name


def forged(attempt: Publishing, number: int) -> bytes:
    """A message whose fields name the program for which the attacker wants to be taken."""
    if attempt.empty:
        return b""
    answers = any(word in attempt.topic for word in ("/result", "/events"))
    server = {"mcp/tools/other/card": "evil", "mcp/tools/read_file/card": "files"}.get(attempt.topic, "weather:1")
    fields = {"from": "writer" if answers else "agent-a", "to": "writer", "client": "web", "server": server}
    return json.dumps({**fields, "number": number}).encode()


def outcome(attempt: Publishing, taken: list[tuple[str | None, InboundMessage]], number: int, topic: str) -> str:
    """What the endpoint did with one message of an attempt."""
    for claimed, message in taken:
        if attempt.empty and message.topic == topic and not message.payload:
            return REMOVED
        if message.payload and json.loads(message.payload)["number"] == number:
            own = program_of(attempt)
            assert claimed is not None
            assert claimed.partition(":")[0] == own, f"{attempt.name}: {attempt.attacker} was taken for {claimed}"
            return ITSELF if claimed in (own, attempt.attacker) else REPLICA
    return REFUSED


async def test_no_attempt_at_an_open_broker_passes_for_somebody_else_where_signatures_are_required(
    broker: Broker, namespace: str
) -> None:
    private, trusted = keys()
    topics = Topics(namespace)
    victim = Connection(broker.url, identity=Identity(private["audit"], trusted, verify="require"))
    screen_messages(victim, topics)
    taken: list[tuple[str | None, InboundMessage]] = []
    ended = asyncio.Event()

    def on_message(message: InboundMessage) -> None:
        if message.topic == topics.agent_status("agent-a") and b"the end" in message.payload:
            ended.set()
        elif message.refusal is None:
            taken.append((claimed_sender(topics, message), message))

    senders: dict[str | None, Connection] = {None: Connection(broker.url)}
    for name in {program_of(attempt) for attempt in PUBLISHING} | {"agent-a"}:
        senders[name] = Connection(broker.url, identity=Identity(private[name], trusted))
    for each in (victim, *senders.values()):
        await soon(each.start())
    await soon(victim.subscribe(f"{namespace}/#", on_message))

    async def outcomes(signed: bool) -> dict[str, str]:
        taken.clear()
        ended.clear()
        for number, attempt in enumerate(PUBLISHING):
            sender = senders[program_of(attempt) if signed else None]
            await soon(sender.publish(f"{namespace}/{attempt.topic}", forged(attempt, number), retain=attempt.retain))
        await soon(senders["agent-a"].publish(topics.agent_status("agent-a"), b"the end"))
        await soon(ended.wait())
        return {
            attempt.name: outcome(attempt, taken, number, f"{namespace}/{attempt.topic}")
            for number, attempt in enumerate(PUBLISHING)
        }

    unsigned, signed = await outcomes(signed=False), await outcomes(signed=True)
    for each in (victim, *senders.values()):
        await soon(each.stop())
    assert set(unsigned.values()) == {REFUSED}
    rows = [f"| {each.name} | {unsigned[each.name]} | {signed[each.name]} |" for each in PUBLISHING]
    table = "\n".join(["| attempt | without a signature | signed by its own key |", "|---|---|---|", *rows])
    shown: Any = re.search(r"<!-- attempts -->\n\n(.*?)\n\n<!-- end -->", PAGE, re.DOTALL)
    assert shown is not None, table
    assert shown[1] == table, table
