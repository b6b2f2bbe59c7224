"""Capabilities: what a broker can do. The core adapts to these values alone, and knows no broker by its name."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from typing_extensions import Self

from mqtt_agent.errors import BrokerNotSupported

__all__ = ["Capabilities"]

_BARE = {0x22: 4096}
"""The properties of a CONNACK packet with this Topic Alias Maximum and nothing else: so does rumqttd, which needs the
behaviours for share groups below. There is no other sign of them that does not cost messages."""


@dataclass(frozen=True)
class Capabilities:
    """What a broker can do: what its CONNACK packet says, what follows from that, and what :func:`probe` has tried.

    Attributes:
        session_present: Said: whether the broker still had the client's session.
        receive_maximum: Said: how many QoS 1 messages the broker takes before it has confirmed the first of them.
        maximum_packet_size: Said: bytes of the largest packet that the broker takes; None is no limit.
        shared_subscriptions: Said: whether the broker offers shared subscriptions.
        session_expiry: Said: seconds that the broker keeps the session; None is as long as the client asked for.
        keep_alive: Said: seconds of silence after which the broker ends the connection; None is what the client asked
            for.
        maximum_qos: Said: the highest QoS of the messages that the broker takes.
        retained_messages: Said: whether the broker keeps retained messages.
        wildcards: Said: whether the broker takes topic filters with wildcards.
        sends_singly: Follows: whether the broker sends a client nothing more, not even at QoS 0, until the client has
            acknowledged the last QoS 1 message. So every message is acknowledged on arrival.
        keeps_retained_apart: Follows: whether the broker may be a cluster whose nodes keep their retained messages
            apart. So endpoints also ask each other for their cards.
        forgets_groups: Follows: whether a share group does not outlive the connections of its members. Two members that
            resume their sessions each get every message, and the broker may crash when the last member leaves. So
            members use a clean start.
        retained_once: Follows: whether retained messages are sent only for a subscription that the session did not have
            before. So such a subscription is removed and made again.
        leaves_all_groups: Follows: whether any UNSUBSCRIBE ends the client's share groups. So members of share groups
            do not unsubscribe.
        expiry_stops_groups: Follows: whether a message that expires ends the delivery to its share group. So messages
            have no Message Expiry Interval.
        echo: Tried: a client gets its own messages, in order.
        shared: Tried: each message to a share group goes to one member.
        retained: Tried: a newcomer gets a retained message.
        says_unheard: Tried: a PUBACK says when nobody is subscribed (0x10).
        message_life: Tried: seconds after which the broker drops a message without a Message Expiry Interval; None when
            the broker says no such time.
        dead_member: Tried: what happens to the messages for a member of a share group whose connection is lost: the
            other members get them (``"skipped"``), they wait in the member's session (``"queued"``), or nobody gets
            them (``"lost"``).
        queues: Tried: messages wait in the session of a client that is away, also more than its Receive Maximum.
        queued_in_order: Tried: these messages come in their order.
        expires: Tried: a message does not wait for longer than its Message Expiry Interval.
        frees_groups: Tried: a member of a share group whose session has ended gets no share of the messages any more.
        ends_sessions: Tried: a session ends within two seconds after its Session Expiry Interval.
        will_after: Tried: seconds until a Last Will with a Will Delay Interval of 2 s was published; infinite when it
            was not published within 5 s.
    """

    session_present: bool
    receive_maximum: int = 65_535
    maximum_packet_size: int | None = None
    shared_subscriptions: bool = True
    session_expiry: int | None = None
    keep_alive: int | None = None
    maximum_qos: int = 2
    retained_messages: bool = True
    wildcards: bool = True

    sends_singly: bool = False
    keeps_retained_apart: bool = False
    forgets_groups: bool = False
    retained_once: bool = False
    leaves_all_groups: bool = False
    expiry_stops_groups: bool = False

    echo: bool | None = None
    shared: bool | None = None
    retained: bool | None = None
    says_unheard: bool | None = None
    message_life: int | None = None
    dead_member: Literal["skipped", "queued", "lost"] | None = None
    queues: bool | None = None
    queued_in_order: bool | None = None
    expires: bool | None = None
    frees_groups: bool | None = None
    ends_sessions: bool | None = None
    will_after: float | None = None

    @classmethod
    def read(cls, session_present: bool, properties: Mapping[int, int | bytes]) -> Self:
        """Read the values of a CONNACK packet, and note what follows from them.

        Args:
            session_present: The flag of the packet.
            properties: The properties of the packet, by their identifiers.
        """

        def number(kind: int) -> int | None:
            value = properties.get(kind)
            return value if isinstance(value, int) else None

        maximum_qos, bare = number(0x24), properties == _BARE
        said = cls(
            session_present=session_present,
            receive_maximum=number(0x21) or 65_535,
            maximum_packet_size=number(0x27),
            session_expiry=number(0x11),
            keep_alive=number(0x13),
            maximum_qos=2 if maximum_qos is None else maximum_qos,
            retained_messages=number(0x25) != 0,
            wildcards=number(0x28) != 0,
            forgets_groups=bare,
            retained_once=bare,
            leaves_all_groups=bare,
            expiry_stops_groups=bare,
        )
        return said.without_groups() if number(0x2A) == 0 else said

    def without_groups(self) -> Self:
        """The capabilities of the same broker, when it has no shared subscriptions.

        ejabberd is the known broker without them, so the others are treated in the same way.
        """
        return dataclasses.replace(self, shared_subscriptions=False, sends_singly=True, keeps_retained_apart=True)

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
