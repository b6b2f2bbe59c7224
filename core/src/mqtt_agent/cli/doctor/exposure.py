"""Whether the broker is open to everybody: without a login, and with topic filters that match everything."""

from __future__ import annotations

import asyncio
import contextlib
import ipaddress
import uuid
from collections.abc import AsyncIterator

from mqtt_agent.aio.waiting import within
from mqtt_agent.cli.doctor.findings import Finding
from mqtt_agent.errors import MQTTAgentError
from mqtt_agent.transport import BrokerSettings, BrokerURL, Connection, InboundMessage

__all__ = ["about_exposure"]

_ARRIVES_WITHIN = 2.0
_STEP = (
    "forbid clients without a login (in Mosquitto: allow_anonymous false), and allow each login only the topics of its "
    "own names: docs/production.md"
)


async def about_exposure(connection: Connection, place: BrokerSettings) -> AsyncIterator[Finding]:
    """Try what everybody may read, and what this login may read.

    Args:
        connection: A started connection with the login of the command line.
        place: The broker, the namespace and the login.
    """
    url = connection.url
    namespace = place.namespace.strip("/")
    has_login = place.credentials is not None or url.username is not None
    nobody = await _anonymous(place, url) if has_login else connection
    if nobody is not None:
        try:
            readable = await _hears(nobody, connection, "#", namespace)
            readable = readable or await _hears(nobody, connection, f"{namespace}/#", namespace)
        finally:
            if nobody is not connection:
                await nobody.stop(end_session=True)
        what = "connect without a login"
        what += f", and read every message of the namespace with the topic filter {readable}" if readable else ""
        if _is_local(url.host):
            yield Finding("open", "note", f"every program on this machine that reaches the broker may {what}", _STEP)
        else:
            yield Finding("open", "wrong", f"everybody who reaches the broker may {what}", _STEP)
    if has_login and await _hears(connection, connection, f"{namespace}/#", namespace):
        message = f"this login may read every message of the namespace ({namespace}/#), also the answers to others"
        yield Finding("open", "note", message, "give this login to people who operate the broker, and not to programs")


async def _anonymous(place: BrokerSettings, url: BrokerURL) -> Connection | None:
    """A connection without a login, or None when the broker refuses it."""
    connection = Connection(str(url), tls=place.tls, session_expiry=0)  # str() leaves out user and password
    try:
        await connection.start()
    except MQTTAgentError:
        return None
    return connection


async def _hears(reader: Connection, writer: Connection, topic_filter: str, namespace: str) -> str | None:
    """The topic filter, if a connection gets with it what another one publishes."""
    topic, heard = f"{namespace}/probe/{uuid.uuid4().hex[:12]}", asyncio.Event()

    def on_message(message: InboundMessage) -> None:
        if message.topic == topic:
            heard.set()

    try:
        await reader.subscribe(topic_filter, on_message, qos=0)
    except MQTTAgentError:
        return None
    try:
        await within(writer.publish(topic, b"{}"), _ARRIVES_WITHIN)
        await within(heard.wait(), _ARRIVES_WITHIN)
    except (MQTTAgentError, asyncio.TimeoutError):
        return None
    finally:
        with contextlib.suppress(MQTTAgentError):
            await reader.unsubscribe(topic_filter, on_message)
    return topic_filter


def _is_local(host: str) -> bool:
    if host == "localhost":
        return True
    with contextlib.suppress(ValueError):
        return ipaddress.ip_address(host).is_loopback
    return False
