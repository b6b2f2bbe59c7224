"""Messages that leave in the same turn of the event loop are signed together, and arrive as if they were not."""

from __future__ import annotations

import asyncio
import json
import os
from typing import Any

import pytest
from brokers import Broker, Mosquitto
from mqtt_agent import Agent, TaskContext, ToolClient, ToolServer
from mqtt_agent.identity import Audit, Identity, PrivateKey, TrustedKeys
from mqtt_agent.identity.batches import Batches
from mqtt_agent.identity.signatures import SIGNATURE_PROPERTY, signed_bytes
from mqtt_agent.tools.serving.answers import _signers
from mqtt_agent.transport import Connection, InboundMessage, Proof, PublishProperties
from proxy import Proxy
from support import soon, until


class CountingKey(PrivateKey):
    """Counts its signatures."""

    signatures = 0

    def sign(self, data: bytes) -> bytes:
        self.signatures += 1
        return super().sign(data)


NAMES = ("agent-a", "agent-b", "caller", "weather")
KEYS = {name: CountingKey(name, os.urandom(32)) for name in NAMES}
TRUSTED = [key.public for key in KEYS.values()]


def identity(name: str) -> Identity:
    return Identity(KEYS[name], TrustedKeys(TRUSTED), verify="require")


class OlderIdentity(Identity):
    """A program that knows only signatures of single messages, and does not say that it knows others."""

    def batches(self) -> Batches | None:
        return None

    def _begin(self, topic: str, payload: bytes, properties: PublishProperties) -> Any:
        assert self.key is not None
        stamps, *_ = super()._begin(topic, payload, properties)
        signer, signed_at, expires_at, nonce = stamps.rsplit(";", 3)
        older = signer, signed_at, expires_at, nonce[2:]
        about = properties.response_topic, properties.correlation_data, properties.content_type
        signed = signed_bytes(*older, topic, payload, *about, properties.user_properties)
        return ";".join(older), signed, properties

    def check(self, message: InboundMessage) -> Proof:
        if any(name == SIGNATURE_PROPERTY and value[:2] != "1;" for name, value in message.user_properties):
            return Proof(fault="version 2 is not known")
        return super().check(message)


def version_of(message: InboundMessage) -> str:
    return dict(message.user_properties)[SIGNATURE_PROPERTY][:1]


async def meet(writer: Connection, reader: Connection, namespace: str) -> list[InboundMessage]:
    """Let the writer learn that the reader checks signatures of batches. Returns what the reader gets then."""
    heard: list[InboundMessage] = []
    arrived: list[InboundMessage] = []
    await writer.subscribe(f"{namespace}/hello", heard.append)
    await reader.subscribe(f"{namespace}/work/+", arrived.append)
    await soon(reader.publish(f"{namespace}/hello", b""))
    await until(lambda: len(heard) == 1)
    assert heard[0].signer == "agent-b"
    return arrived


@pytest.mark.rule("SIG-11", "SIG-13")
async def test_the_messages_of_a_turn_have_one_signature_and_keep_their_order_on_every_broker(
    broker: Broker, namespace: str
) -> None:
    reader = Connection(broker.url, identity=identity("agent-b"))
    await soon(reader.start())
    async with Proxy(broker.url) as proxy:
        writer = Connection(proxy.url, identity=identity("agent-a"))
        await soon(writer.start())
        arrived = await meet(writer, reader, namespace)

        def send(first: int, count: int) -> list[asyncio.Future[int]]:
            topic, to = f"{namespace}/work/all", ["agent-b"]
            return [
                writer.publish_soon(topic, b"%d" % number, readers=to if number != 5 else ["nobody"])
                for number in range(first, first + count)
            ]

        before = KEYS["agent-a"].signatures
        await soon(asyncio.gather(*send(0, 20)))
        await until(lambda: len(arrived) == 20)
        assert KEYS["agent-a"].signatures - before == 2  # the batch, and the message for a stranger
        await proxy.cut()
        waiting = send(20, 10)
        await proxy.mend()
        await soon(asyncio.gather(*waiting))
        await until(lambda: len({each.payload for each in arrived}) == 30)
        await soon(writer.stop())
    numbers = list(dict.fromkeys(int(each.payload) for each in arrived))
    assert numbers == list(range(30))
    assert {each.signer for each in arrived} == {"agent-a"}, [each.proof for each in arrived]
    assert {int(each.payload) for each in arrived if version_of(each) == "1"} == {5}
    await soon(reader.stop())


async def test_a_message_that_fits_only_with_a_single_signature_has_one(mosquitto: Mosquitto, namespace: str) -> None:
    reader = Connection(mosquitto.url, identity=identity("agent-b"))
    writer = Connection(mosquitto.url, identity=identity("agent-a"), max_packet_size=1000)
    await soon(asyncio.gather(reader.start(), writer.start()))
    arrived = await meet(writer, reader, namespace)
    topic = f"{namespace}/work/all"
    most = next(size for size in range(900, 0, -1) if fits(writer, topic, size))
    sent = [writer.publish_soon(topic, bytes(size), readers=["agent-b"]) for size in (10, most, most - 300)]
    await soon(asyncio.gather(*sent))
    await until(lambda: len(arrived) == 3)
    assert [each.signer for each in arrived] == ["agent-a"] * 3
    assert [version_of(each) for each in arrived] == ["2", "1", "2"]
    await soon(asyncio.gather(reader.stop(), writer.stop()))


def fits(connection: Connection, topic: str, size: int) -> bool:
    try:
        connection.check_publish(topic, bytes(size))
    except Exception:  # the error is PayloadTooLarge
        return False
    return True


@pytest.mark.rule("SIG-11", "SIG-13")
async def test_calls_at_once_need_few_signatures_and_the_audit_names_each_caller(
    mosquitto: Mosquitto, namespace: str
) -> None:
    at_once = 40
    where: dict[str, Any] = {"broker": mosquitto.url, "namespace": namespace}
    near: list[dict[str, Any]] = []
    far: list[dict[str, Any]] = []
    server = ToolServer("weather", **where, replica="1", identity=identity("weather"), audit=Audit(far.append))

    @server.tool
    async def double(number: int) -> int:
        return 2 * number

    async with server, ToolClient("caller", **where, identity=identity("caller"), audit=Audit(near.append)) as caller:
        assert await soon(caller.call("double", {"number": 1})) == 2
        before = {name: KEYS[name].signatures for name in ("caller", "weather")}
        results = await soon(asyncio.gather(*(caller.call("double", {"number": n}) for n in range(at_once))))
        assert results == [2 * n for n in range(at_once)]
        made = {name: KEYS[name].signatures - before[name] for name in before}
    assert made["caller"] <= 2 + at_once // 20
    assert made["weather"] < at_once, made
    calls = [each for each in far if each["kind"] == "call"]
    assert [brief(each) for each in calls] == [("in", "caller", "caller", "accepted")] * (at_once + 1)
    answers = [each for each in near if each["kind"] == "responses" and each["of"] == "caller"]
    proven = [brief(each) for each in answers if each["claimed"] == "weather:1"]
    assert proven == [("in", "weather:1", "weather", "accepted")] * (at_once + 1)


def brief(line: dict[str, Any]) -> tuple[Any, ...]:
    return tuple(line[name] for name in ("direction", "claimed", "proven", "outcome"))


@pytest.mark.rule("SIG-12")
async def test_a_call_that_takes_its_signature_from_a_batch_does_not_run_and_is_in_the_audit_as_refused(
    mosquitto: Mosquitto, namespace: str
) -> None:
    where: dict[str, Any] = {"broker": mosquitto.url, "namespace": namespace}
    seen: list[InboundMessage] = []
    ran: list[int] = []
    far: list[dict[str, Any]] = []
    server = ToolServer("weather", **where, replica="1", identity=identity("weather"), audit=Audit(far.append))

    @server.tool
    async def double(number: int) -> int:
        ran.append(number)
        return 2 * number

    evil = Connection(mosquitto.url)
    await soon(evil.start())
    await evil.subscribe(f"{namespace}/mcp/tools/double/call/+", seen.append)
    async with server, ToolClient("caller", **where, identity=identity("caller")) as caller:
        await soon(caller.call("double", {"number": 0}))
        await soon(asyncio.gather(*(caller.call("double", {"number": n}) for n in range(1, 9))))
        await until(lambda: len(seen) == 9)
        captured = next(each for each in seen if version_of(each) == "2")
        payload = json.loads(captured.payload)
        payload |= {"call_id": "forged", "arguments": {"number": 99}}
        about = PublishProperties(
            captured.response_topic, b"forged", user_properties=captured.user_properties, message_expiry=30
        )
        await soon(evil.publish(captured.topic, json.dumps(payload).encode(), properties=about))
        again = PublishProperties(
            *(captured.response_topic, captured.correlation_data, captured.content_type, 30, captured.user_properties)
        )
        await soon(evil.publish(captured.topic, captured.payload, properties=again))
        await until(lambda: any(each["outcome"] == "refused" for each in far))
        assert await soon(caller.call("double", {"number": 100})) == 200
    (refused,) = (each for each in far if each["outcome"] == "refused")
    assert (refused["id"], refused["how"]) == ("forged", "topic"), "the topic says it, and no signature proves it"
    assert "or the message was changed" in refused["reason"]
    assert sorted(ran) == [*range(9), 100], "a captured call that is sent again does not run again"
    await soon(evil.stop())


@pytest.mark.rule("SIG-13")
@pytest.mark.parametrize("older", ["caller", "weather"])
async def test_programs_that_know_only_single_signatures_work_with_those_that_know_batches(
    older: str, mosquitto: Mosquitto, namespace: str
) -> None:
    who = {
        name: (OlderIdentity if name == older else Identity)(KEYS[name], TrustedKeys(TRUSTED), verify="require")
        for name in ("caller", "weather")
    }
    where: dict[str, Any] = {"broker": mosquitto.url, "namespace": namespace}
    server = ToolServer("weather", **where, identity=who["weather"])

    @server.tool
    async def double(number: int) -> int:
        return 2 * number

    async with server, ToolClient("caller", **where, identity=who["caller"]) as caller:
        for _ in range(2):
            results = await soon(asyncio.gather(*(caller.call("double", {"number": n}) for n in range(20))))
            assert results == [2 * n for n in range(20)]


@pytest.mark.rule("SIG-11", "SIG-13")
async def test_tasks_at_once_need_few_signatures(mosquitto: Mosquitto, namespace: str) -> None:
    at_once = 30
    where: dict[str, Any] = {"broker": mosquitto.url, "namespace": namespace, "store": None}
    executor = Agent("agent-b", **where, max_concurrency=at_once, identity=identity("agent-b"))

    @executor.on_task
    async def work(task: TaskContext) -> str:
        return f"{task.verified} {task.prompt}"

    async with executor, Agent("agent-a", **where, identity=identity("agent-a")) as requester:
        assert await soon((await requester.delegate("agent-b", "first")).result()) == "agent-a first"
        before = {name: KEYS[name].signatures for name in ("agent-a", "agent-b")}
        handles = await soon(asyncio.gather(*(requester.delegate("agent-b", str(n)) for n in range(at_once))))
        results = await soon(asyncio.gather(*(handle.result() for handle in handles)))
        assert results == [f"agent-a {n}" for n in range(at_once)]
        made = {name: KEYS[name].signatures - before[name] for name in before}
    assert made["agent-a"] < at_once
    assert made["agent-b"] < 3 * at_once  # two events and the result of each task


@pytest.mark.rule("SIG-13")
def test_an_answer_is_in_a_batch_only_if_all_who_wrote_the_call_and_its_repeats_check_batches() -> None:
    def message(signer: str | None) -> InboundMessage:
        made = InboundMessage("call", b"")
        made._proof = Proof(signer)
        return made

    assert _signers([message("caller"), message("caller")]) == ("caller",)
    assert sorted(_signers([message("caller"), message("stranger")])) == ["caller", "stranger"]
    assert _signers([message(None), message("stranger")]) == ()
    assert _signers([]) == ()
