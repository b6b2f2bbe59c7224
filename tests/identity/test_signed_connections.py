"""A connection with an identity signs everything that it sends, and the signatures survive every broker."""

from __future__ import annotations

import asyncio
import time

import pytest
from brokers import Broker
from mqtt_agent.identity.keys import PrivateKey, TrustedKeys
from mqtt_agent.identity.signing import Identity
from mqtt_agent.transport import Connection, InboundMessage, PublishProperties, Will
from proxy import Proxy
from support import soon, until

A, B = PrivateKey.new("agent-a"), PrivateKey.new("agent-b")
TRUSTED = TrustedKeys([A.public, B.public])


@pytest.mark.rule("SIG-1", "SIG-2", "SIG-5")
async def test_signed_messages_prove_their_signer_after_any_way_through_the_broker(
    broker: Broker, namespace: str
) -> None:
    arrived: list[InboundMessage] = []
    reader = Connection(broker.url, identity=Identity(B, TRUSTED))
    await soon(reader.start())
    async with Proxy(broker.url) as proxy:
        writer = Connection(proxy.url, identity=Identity(A, TRUSTED), will_delay=1)
        writer.claim_will(Will(f"{namespace}/will", lambda: b"gone"))
        await soon(writer.start())
        await soon(writer.publish(f"{namespace}/kept", b"kept", retain=True))
        await reader.subscribe(f"{namespace}/+", arrived.append, snapshot=True)
        await until(lambda: len(arrived) == 1)
        properties = PublishProperties(f"{namespace}/answers", b"1", message_expiry=60, user_properties=(("x", "y"),))
        await soon(writer.publish(f"{namespace}/qos1", b"\xff", properties=properties))
        await soon(writer.publish(f"{namespace}/qos0", b"0", qos=0))
        await until(lambda: len(arrived) == 3)

        await proxy.cut()
        waiting = writer.publish_soon(f"{namespace}/waited", b"waited", properties=properties)
        signed = time.monotonic()
        await until(lambda: time.monotonic() > signed + 1.2)  # a second of the expiry is over: it is packed again
        await proxy.mend()
        await soon(waiting)
        await until(lambda: any(each.topic.endswith("waited") for each in arrived))
        await proxy.cut()
        await until(lambda: any(each.topic.endswith("will") for each in arrived))
        await soon(writer.stop())
    assert {each.topic.rpartition("/")[2] for each in arrived} == {"kept", "qos1", "qos0", "waited", "will"}
    assert {each.signer for each in arrived} == {"agent-a"}, [each.proof for each in arrived]
    assert all(abs(each.proof.signed_at - time.time() * 1000) < 60_000 for each in arrived)
    await soon(reader.stop())


async def test_a_connection_without_an_identity_proves_nothing_and_reads_signed_messages(
    broker: Broker, namespace: str
) -> None:
    plain, signed = Connection(broker.url), Connection(broker.url, identity=Identity(A, TRUSTED))
    at_plain: list[InboundMessage] = []
    at_signed: list[InboundMessage] = []
    await soon(asyncio.gather(plain.start(), signed.start()))
    await plain.subscribe(f"{namespace}/+", at_plain.append)
    await signed.subscribe(f"{namespace}/+", at_signed.append)
    await soon(plain.publish(f"{namespace}/plain", b""))
    await soon(signed.publish(f"{namespace}/signed", b""))
    await until(lambda: len(at_plain) == len(at_signed) == 2)
    assert [each.signer for each in at_plain] == [None, None]
    by_topic = {each.topic.rpartition("/")[2]: each for each in at_signed}
    assert (by_topic["signed"].signer, by_topic["plain"].signer) == ("agent-a", None)
    assert by_topic["plain"].proof.fault == "the message has no signature"
    await soon(asyncio.gather(plain.stop(), signed.stop()))
