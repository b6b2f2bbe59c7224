"""What a broker says of itself in its CONNACK packet."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from mqtt_agent.errors import BrokerNotSupported

__all__ = ["BrokerLimits"]

_RUMQTTD = {0x22: 4096}
"""rumqttd does not give its name. Its CONNACK packet has this Topic Alias Maximum, and no other property."""


@dataclass(frozen=True)
class BrokerLimits:
    """What the broker said in its CONNACK packet.

    Attributes:
        session_present: Whether the broker still had the client's session.
        receive_maximum: How many QoS 1 messages the broker takes before it has confirmed the first of them.
        maximum_packet_size: Bytes of the largest packet that the broker takes; None is no limit.
        shared_subscriptions: Whether the broker offers shared subscriptions. A broker without them is treated like
            ejabberd, which sends a client nothing more, not even at QoS 0, until the client has acknowledged the last
            QoS 1 message. So every message from such a broker is acknowledged on arrival.
        forgets_groups: Whether the broker is rumqttd, where a share group does not outlive the connections of its
            members. Two members that resume their sessions each get every message. When the last member leaves and its
            session has an unacknowledged message, the broker crashes. So members must use a clean start there.
        session_expiry: Seconds that the broker keeps the session; None is as long as the client asked for.
        keep_alive: Seconds of silence after which the broker ends the connection; None is what the client asked for.
        maximum_qos: The highest QoS of the messages that the broker takes.
        retained_messages: Whether the broker keeps retained messages.
        wildcards: Whether the broker takes topic filters with wildcards.
    """

    session_present: bool
    receive_maximum: int = 65_535
    maximum_packet_size: int | None = None
    shared_subscriptions: bool = True
    forgets_groups: bool = False
    session_expiry: int | None = None
    keep_alive: int | None = None
    maximum_qos: int = 2
    retained_messages: bool = True
    wildcards: bool = True

    @classmethod
    def read(cls, session_present: bool, properties: Mapping[int, int | bytes]) -> BrokerLimits:
        """Read the values of a CONNACK packet.

        Args:
            session_present: The flag of the packet.
            properties: The properties of the packet, by their identifiers.
        """

        def number(kind: int) -> int | None:
            value = properties.get(kind)
            return value if isinstance(value, int) else None

        maximum_qos = number(0x24)
        return cls(
            session_present=session_present,
            receive_maximum=number(0x21) or 65_535,
            maximum_packet_size=number(0x27),
            shared_subscriptions=number(0x2A) != 0,
            forgets_groups=properties == _RUMQTTD,
            session_expiry=number(0x11),
            keep_alive=number(0x13),
            maximum_qos=2 if maximum_qos is None else maximum_qos,
            retained_messages=number(0x25) != 0,
            wildcards=number(0x28) != 0,
        )

    def shortcomings(self, session_expiry: int) -> list[str]:
        """What the broker does worse than the client has asked for, and what holds nevertheless.

        Args:
            session_expiry: Seconds that the client has asked the broker to keep its session.
        """
        found: list[str] = []
        if self.session_expiry is not None and self.session_expiry < session_expiry:
            found.append(
                f"keeps sessions for {self.session_expiry:,} s and not for {session_expiry:,} s: what arrives for a "
                "client that is away for longer is lost, and the client asks for it when it is back; the broker's "
                "settings may allow more"
            )
        if not self.wildcards:
            found.append("takes no wildcards: tools and agents are looked up one by one, and cannot be listed")
        return found

    def check(self, url: object) -> None:
        """Refuse a broker with which no endpoint works.

        Args:
            url: The broker's URL, for the error.

        Raises:
            BrokerNotSupported: The broker has no QoS 1, or no retained messages.
        """
        if self.maximum_qos < 1:
            what = "takes messages at QoS 0 only, so it may lose each of them: allow QoS 1"
        elif not self.retained_messages:
            what = "has no retained messages, so nobody finds a tool or an agent: allow them"
        else:
            return
        raise BrokerNotSupported(f"{url} cannot be used: it {what} at the broker, or use another broker")
