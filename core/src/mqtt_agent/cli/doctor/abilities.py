"""What the broker can do, and what follows from that for tools and agents."""

from __future__ import annotations

import math
from collections.abc import Iterator

from mqtt_agent.cli.doctor.findings import Finding
from mqtt_agent.transport import Capabilities

__all__ = ["AGENT_SESSION", "about_broker"]

AGENT_SESSION: int = 24 * 3600
"""Seconds that an agent asks the broker to keep its session."""
_FEW = 10


def about_broker(limits: Capabilities, found: Capabilities, topic: str) -> Iterator[Finding]:
    """Describe a broker.

    Args:
        limits: What the broker says of itself to a client that asks for the session of an agent.
        found: What the broker does.
        topic: The topics at which the broker was tried.
    """
    shortcomings = list(_shortcomings(limits, found, topic))
    yield from shortcomings
    tried = {"own messages in order": found.echo, "retained messages": found.retained, "share groups": found.shared}
    good = [name for name, does in tried.items() if does]
    yield Finding("broker", "ok", "the broker speaks MQTT 5" + (f"; tried and good: {', '.join(good)}" if good else ""))
    if not shortcomings:
        yield Finding("broker", "ok", "the broker can do everything that tools and agents need")


def _shortcomings(limits: Capabilities, found: Capabilities, topic: str) -> Iterator[Finding]:
    if (found.echo, found.retained) == (False, False):
        yield Finding(
            "rights",
            "wrong",
            f"the broker accepted subscriptions and messages below {topic}, and delivered nothing: the right to read "
            "is missing there, although the SUBACK said yes",
            f"allow this login to read {topic}/#",
        )
        return
    if found.echo is None:
        yield Finding(
            "broker",
            "note",
            f"the broker could not be tried, because this login may not use {topic}/#: what follows is what the broker "
            "says of itself",
            f"allow this login to read and write {topic}/#, or examine the broker with another login",
        )
    yield from _broken_promises(limits, found)
    yield from _after_breaks(found)
    for shortcoming in limits.shortcomings(AGENT_SESSION):
        yield Finding("broker", "warning", f"the broker {shortcoming}", "raise this limit in the broker's settings")
    if not limits.shared_subscriptions:
        yield Finding(
            "broker",
            "note",
            "the broker has no shared subscriptions: of the replicas of a tool server, one serves and the others are "
            "on standby",
            "use a broker with shared subscriptions to spread calls over replicas",
        )
    if found.says_unheard is False:
        yield Finding(
            "broker",
            "note",
            "the broker does not say when nobody is subscribed: a call to a server that has died is noticed when its "
            "Last Will comes, or at the call's timeout",
        )
    if limits.receive_maximum < _FEW:
        yield Finding(
            "limits",
            "warning",
            f"the broker takes only {limits.receive_maximum} unconfirmed messages at once from each client, so calls "
            "wait for each other",
            "raise the Receive Maximum (in Mosquitto: max_inflight_messages)",
        )


def _after_breaks(found: Capabilities) -> Iterator[Finding]:
    """What the broker does badly for clients whose connection breaks. Tools and agents work nevertheless."""
    if found.queues is False:
        yield Finding(
            "broker",
            "warning",
            "the broker drops messages that wait for a client that is away: calls and tasks are sent again when the "
            "client is back, which takes time",
            "raise the broker's limits for waiting messages (in Mosquitto: max_queued_messages)",
        )
    if found.dead_member == "lost":
        message = "the broker drops the calls that it gives to a replica whose connection is lost: they are sent again"
        yield Finding("broker", "note", message)
    if found.frees_groups is False:
        yield Finding(
            "broker",
            "warning",
            "the broker gives calls to replicas whose session has ended, and drops them: after a replica was killed, "
            "calls take longer or fail until the broker starts again",
            "stop replicas with SIGTERM, or use another broker: docs/brokers.md lists those that work",
        )
    if found.ends_sessions is False:
        message = "the broker keeps sessions longer than asked, so a killed replica is noticed later"
        yield Finding("broker", "note", message)
    if found.will_after is not None and not 1 <= found.will_after < math.inf:
        when = "late" if found.will_after == math.inf else "without its delay"
        yield Finding(
            "broker",
            "warning",
            f"the broker publishes a Last Will {when}: "
            + (
                "tools and agents that were killed are shown as online for long"
                if when == "late"
                else "each short break of the network shows tools and agents as offline"
            ),
            "use another broker: docs/brokers.md lists those that work",
        )


def _broken_promises(limits: Capabilities, found: Capabilities) -> Iterator[Finding]:
    if found.echo is False:
        yield Finding(
            "broker",
            "wrong",
            "the broker does not return a client's own messages in order, so nobody can tell when a list is complete",
            "use another broker: docs/brokers.md lists those that work",
        )
    if found.retained is False:
        yield Finding(
            "broker",
            "wrong",
            "the broker does not give retained messages to a newcomer, so nobody finds a tool or an agent",
            "allow retained messages at the broker (in Mosquitto: retain_available true)",
        )
    if limits.shared_subscriptions and found.shared is False:
        yield Finding(
            "broker",
            "wrong",
            "the broker says that it has shared subscriptions, and does not give each message to exactly one member: "
            "calls run twice, or never",
            "run one replica of each tool server, or use another broker",
        )
    if found.message_life is not None:
        yield Finding(
            "limits",
            "warning",
            f"the broker drops each message after {found.message_life:,} s: the cards of other SDKs vanish, and a task "
            "does not wait longer than that for an agent that is away",
            "raise the broker's limit for the Message Expiry Interval",
        )
