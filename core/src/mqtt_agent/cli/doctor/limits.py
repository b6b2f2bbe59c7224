"""Whether the broker takes messages that are as large as the cards and calls of the namespace."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

from mqtt_agent.aio.waiting import within
from mqtt_agent.cli.doctor.findings import Finding
from mqtt_agent.cli.doctor.picture import Picture
from mqtt_agent.errors import MQTTAgentError, PayloadTooLarge, PublishRefused
from mqtt_agent.transport import Connection
from mqtt_agent.wire import DEFAULT_MAX_PAYLOAD
from mqtt_agent.wire.messages import MAX_CARD_PAYLOAD

__all__ = ["about_sizes"]

_ROOM = 0.8
"""The share of the limit that the largest card may use."""
_ANSWERS_WITHIN = 5.0
_STEP = "raise the limit at the broker (in Mosquitto: max_packet_size and message_size_limit)"


async def about_sizes(connection: Connection, picture: Picture, topic: str) -> AsyncIterator[Finding]:
    """Compare the broker's limits with the largest card, and with the largest call.

    Args:
        connection: A started connection.
        picture: What is in the namespace.
        topic: A topic to which nobody is subscribed. A message of the size of a large card is tried there.
    """
    where, largest = max(picture.sizes.items(), key=lambda each: each[1], default=("", 0))
    if largest > MAX_CARD_PAYLOAD:
        message = (
            f"the card at {where} has {largest:,} bytes, and readers take at most {MAX_CARD_PAYLOAD:,}: nobody sees it"
        )
        yield Finding("limits", "wrong", message, "shorten the descriptions and the schema of the card")
    limits = connection.limits
    most = limits.maximum_packet_size if limits is not None else None
    if most is not None and largest > most * _ROOM:
        yield Finding(
            "limits",
            "wrong",
            f"the largest card, at {where}, has {largest:,} bytes, and the broker takes packets of at most {most:,}: "
            "a card that grows a little, or the Last Will of its server, is refused",
            _STEP,
        )
    elif most is not None and most < DEFAULT_MAX_PAYLOAD:
        message = f"the broker takes packets of at most {most:,} bytes: larger calls, answers and cards are refused"
        yield Finding("limits", "warning", message, _STEP)
    else:
        refusal = await _refusal(connection, topic, MAX_CARD_PAYLOAD)
        if refusal is not None:
            what = f"the broker refuses a message of {MAX_CARD_PAYLOAD:,} bytes, as large as a card may be: {refusal}"
            yield Finding("limits", "wrong", what, _STEP)


async def _refusal(connection: Connection, topic: str, size: int) -> str | None:
    """Why the broker refuses a message of this size; None when it takes the message, or refuses any message there."""
    epoch = connection.epoch
    try:
        await within(connection.publish(topic, b" " * size), _ANSWERS_WITHIN)
    except (PublishRefused, PayloadTooLarge) as error:
        return str(error)
    except (MQTTAgentError, asyncio.TimeoutError):
        return "it ends the connection" if connection.epoch != epoch else None
    return None
