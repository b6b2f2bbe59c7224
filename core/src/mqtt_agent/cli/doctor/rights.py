"""Which rights a login has: each is tried by publishing a message and hearing it back."""

from __future__ import annotations

import asyncio
import contextlib
import uuid
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace

from mqtt_agent.aio.waiting import within
from mqtt_agent.cli.doctor.findings import Finding, listed
from mqtt_agent.cli.doctor.paths import Kind, Path
from mqtt_agent.errors import MQTTAgentError, SubscriptionRefused, TopicNotAuthorized
from mqtt_agent.transport import Connection, InboundMessage

__all__ = ["about_rights", "try_paths"]

_ARRIVES_WITHIN = 2.0
_ANSWERS_WITHIN = 5.0
_MARK = "mqtt-agent-doctor"
_TOPICS: dict[Kind, str] = {"plain": "plain topics", "bound": "sender-bound topics"}
_SETTING: dict[Kind, str] = {"plain": "off", "bound": "require"}


@dataclass
class Tried:
    """What happened on one path.

    Attributes:
        path: The path.
        subscribed: Whether the SUBACK said yes.
        published: Whether the broker took the message; None when no message was published.
        heard: Set when the message came back.
    """

    path: Path
    subscribed: bool = False
    published: bool | None = None
    heard: asyncio.Event = field(default_factory=asyncio.Event)


async def try_paths(connection: Connection, paths: Sequence[Path]) -> list[Tried]:
    """Subscribe, publish and listen on each path.

    Args:
        connection: A started connection with the login to try.
        paths: The paths of one role.

    Raises:
        TransportError: The connection has ended for good.
    """
    tried = [Tried(path) for path in paths]
    for each in tried:
        each.subscribed = await _subscribe(connection, each)
    for each in tried:
        if not each.path.silent:
            each.published = await _publish(connection, each)
    awaited = [each for each in tried if each.subscribed and each.published]
    with contextlib.suppress(asyncio.TimeoutError):
        await within(asyncio.gather(*(each.heard.wait() for each in awaited)), _ARRIVES_WITHIN)
    return tried


async def _subscribe(connection: Connection, tried: Tried) -> bool:
    def on_message(message: InboundMessage) -> None:
        if (_MARK, _mark(tried)) in message.user_properties:
            tried.heard.set()

    try:
        await within(connection.subscribe(tried.path.filter or tried.path.topic, on_message), _ANSWERS_WITHIN)
    except (TopicNotAuthorized, SubscriptionRefused, asyncio.TimeoutError):
        return False
    return True


async def _publish(connection: Connection, tried: Tried) -> bool:
    path = tried.path
    properties = replace(path.properties, user_properties=((_MARK, _mark(tried)),))
    try:
        await within(connection.publish(path.topic, path.payload, properties=properties), _ANSWERS_WITHIN)
    except asyncio.TimeoutError:
        return False
    except MQTTAgentError:
        return False  # some brokers end the connection of whoever publishes to a forbidden topic
    return True


def _mark(tried: Tried) -> str:
    return f"{_SESSION}-{id(tried)}"


_SESSION = uuid.uuid4().hex[:8]


def about_rights(role: str, name: str, kind: Kind, tried: Sequence[Tried], *, wanted: bool) -> Iterator[Finding]:
    """Describe the rights of a login in one role.

    Args:
        role: A name of :data:`mqtt_agent.cli.doctor.paths.ROLES`.
        name: The name in the role's topics.
        kind: The topics that were tried.
        tried: What happened on the paths of the role.
        wanted: Whether the login must have the rights. Otherwise the login may be meant for another role, and one note
            says that rights are refused.
    """
    refused = [(each, what) for each in tried if (what := _refused(each))]
    silent = [each for each in tried if _is_silent(each)]
    if refused and not wanted:
        message = (
            f"this login cannot be the {role} {name!r} on {_TOPICS[kind]}: "
            f"{len(refused) + len(silent)} of {len(tried)} rights are missing"
        )
        advice = f"if it should be one, list them with --role {role} --as {name} --bound {_SETTING[kind]}"
        yield Finding("rights", "note", message, advice)
        return
    for each, what in refused:
        message = f"as {role} {name!r}, this login may not {what}. What the right is for: {each.path.why}"
        yield Finding("rights", "wrong", message, f"allow this login to {what}")
    for each in silent:
        path = each.path
        yield Finding(
            "rights",
            "wrong",
            f"as {role} {name!r}: the broker accepted a subscription to {path.filter} and a message to {path.topic}, "
            f"and did not deliver the message. A right is missing, although the SUBACK said yes. "
            f"What the right is for: {path.why}",
            f"allow this login to read {path.filter}" + (f" and to write {path.topic}" if path.publishes else ""),
        )
    if not refused and not silent:
        proven = [each for each in tried if each.heard.is_set()]
        message = (
            f"this login may be the {role} {name!r} on {_TOPICS[kind]}: "
            f"{len(proven)} of {len(tried)} rights were proven by a message"
        )
        unproven = [each.path.filter for each in tried if each.path.filter and not each.heard.is_set()]
        if unproven:
            message += f". The SUBACK alone says yes for {listed(unproven)}"
        yield Finding("rights", "ok", message)


def _refused(tried: Tried) -> str:
    """Which right the broker refuses, in words; empty if none."""
    path = tried.path
    refused = [f"subscribe to {path.filter}"] if path.filter and not tried.subscribed else []
    refused += [f"publish to {path.topic}"] if path.publishes and tried.published is False else []
    return " and ".join(refused)


def _is_silent(tried: Tried) -> bool:
    """Whether the broker accepted everything, and delivered nothing."""
    accepted = tried.path.filter is not None and tried.subscribed and bool(tried.published)
    return accepted and not tried.heard.is_set()
