"""The reason codes of MQTT 5: their names, what to do about each, and which of them a repeat may cure."""

from __future__ import annotations

from mqtt_agent.errors import PublishRefused, SubscriptionRefused, TopicNotAuthorized, TransportError

__all__ = [
    "IDENTIFIER_IN_USE",
    "LASTING_REFUSALS",
    "NOT_AUTHORIZED",
    "NO_MATCHING_SUBSCRIBERS",
    "QUOTA_EXCEEDED",
    "REFUSED_LOGINS",
    "SHARED_NOT_SUPPORTED",
    "TAKEN_OVER",
    "TOPIC_NAME_INVALID",
    "check_reason_code",
    "explain_reason",
    "is_denied",
    "subscription_error",
]

NO_MATCHING_SUBSCRIBERS: int = 0x10
"""The reason code of a PUBACK for a message that nobody is subscribed to."""
NOT_AUTHORIZED: int = 0x87
TAKEN_OVER: int = 0x8E
TOPIC_NAME_INVALID: int = 0x90
"""The broker does not take this topic. Topics are checked before, so the broker's rules forbid it, as at ejabberd."""
LASTING_REFUSALS: frozenset[int] = frozenset((0x84, 0x85, 0x86, 0x87, 0x8A, 0x8C))
"""The reason codes of a CONNACK that repeat until somebody changes the login, or the broker's rules."""
REFUSED_LOGINS: frozenset[int] = frozenset((0x86, 0x87))
"""The reason codes of a CONNACK that another user name and password may cure."""
IDENTIFIER_IN_USE: int = 0x91
"""The broker did not take the packet, and takes it under another packet identifier."""
QUOTA_EXCEEDED: int = 0x97
"""The broker did not take the packet, and may take it later."""
SHARED_NOT_SUPPORTED: int = 0x9E

_BUSY = "the broker has no capacity now: try again later, or raise its limits"
_ELSEWHERE = "the broker wants this client at another address: use that URL"
_RIGHTS = "check what the broker's access rules allow this client"
_BUG = "the broker did not understand a packet: look at its log, and report it"
_REASONS: dict[int, tuple[str, str]] = {
    0x00: ("normal disconnection", ""),
    0x04: ("disconnect with will message", ""),
    0x10: ("no matching subscribers", ""),
    0x11: ("no subscription existed", ""),
    0x80: ("unspecified error", "the broker's log may say why"),
    0x81: ("malformed packet", _BUG),
    0x82: ("protocol error", _BUG),
    0x83: ("implementation specific error", "the broker's log may say why"),
    0x84: ("unsupported protocol version", "use a broker that speaks MQTT 5"),
    0x85: ("client identifier not valid", "choose another client id"),
    0x86: ("bad user name or password", "check the user name and the password or token"),
    0x87: ("not authorized", _RIGHTS),
    0x88: ("server unavailable", _BUSY),
    0x89: ("server busy", _BUSY),
    0x8A: ("banned", "the broker has banned this client: ask its operator"),
    0x8B: ("server shutting down", ""),
    0x8C: ("bad authentication method", "the broker wants another way to log in than a user name and a password"),
    0x8D: ("keep alive timeout", "the network or this process stood still: look for blocking code"),
    0x8E: ("session taken over", "give each process a client id of its own"),
    0x8F: ("topic filter invalid", "the broker's rules do not allow such a topic filter"),
    0x90: ("topic name invalid", f"the broker's rules do not allow such a topic; ejabberd means: {_RIGHTS}"),
    0x91: ("packet identifier in use", "the broker mixes up packet identifiers: update the broker"),
    0x93: ("receive maximum exceeded", _BUG),
    0x94: ("topic alias invalid", _BUG),
    0x95: ("packet too large", "send less, or raise the broker's Maximum Packet Size"),
    0x96: ("message rate too high", "send less often, or raise the broker's limit"),
    0x97: ("quota exceeded", "raise the broker's quota of messages, bytes, subscriptions or connections"),
    0x98: ("administrative action", "an operator of the broker ended the connection"),
    0x99: ("payload format invalid", "the broker checks payloads: allow JSON"),
    0x9A: ("retain not supported", "allow retained messages at the broker: cards are retained"),
    0x9B: ("QoS not supported", "allow QoS 1 at the broker"),
    0x9C: ("use another server", _ELSEWHERE),
    0x9D: ("server moved", _ELSEWHERE),
    0x9E: ("shared subscriptions not supported", ""),
    0x9F: ("connection rate exceeded", _BUSY),
    0xA0: ("maximum connect time", "the broker limits how long a connection lasts"),
    0xA1: ("subscription identifiers not supported", _BUG),
    0xA2: ("wildcard subscriptions not supported", "allow wildcards at the broker"),
}


def explain_reason(code: int, said: str = "", advice: str | None = None) -> str:
    """The name of a reason code, what the broker said in addition, and what to do.

    Args:
        code: The reason code.
        said: The broker's Reason String or Server Reference, if any.
        advice: What to do, in place of the usual advice.
    """
    name, usual = _REASONS.get(code, ("a reason that MQTT 5 does not know", ""))
    said = f": {said!r:.200}" if said else ""
    what = usual if advice is None else advice
    return f"{name} (0x{code:02x}){said}" + (f"; {what}" if what else "")


def is_denied(reason_code: int) -> bool:
    """Whether a broker does not let the client publish to a topic, according to the reason code of a PUBACK."""
    return reason_code in (NOT_AUTHORIZED, TOPIC_NAME_INVALID)


def check_reason_code(reason_code: int, topic: str) -> int:
    """Return the reason code of a PUBACK when it means success, else raise the matching error.

    Args:
        reason_code: The reason code.
        topic: The topic of the message, for the error.

    Raises:
        TopicNotAuthorized: The reason code is 0x87, or 0x90, with which ejabberd denies a topic.
        PublishRefused: The reason code is another code of 0x80 or more.
    """
    if reason_code < 0x80:
        return reason_code
    if is_denied(reason_code):
        said = "" if reason_code == NOT_AUTHORIZED else f" ({explain_reason(reason_code, advice='')})"
        raise TopicNotAuthorized(f"the broker does not let this client publish to {topic}{said}", topic=topic)
    what = f"the broker refused a message for {topic}: {explain_reason(reason_code)}"
    raise PublishRefused(what, topic=topic, reason_code=reason_code)


def subscription_error(url: object, client_id: str, topic_filter: str, code: int) -> TransportError:
    """The error for the reason code of a SUBACK of 0x80 or more.

    Args:
        url: The broker's URL.
        client_id: The MQTT client id.
        topic_filter: The topic filter.
        code: The reason code.
    """
    if code == NOT_AUTHORIZED:
        what = f"{url} does not let {client_id!r} subscribe to {topic_filter} (0x{code:02x})"
        return TopicNotAuthorized(what, topic=topic_filter)
    what = f"{url} refused the subscription of {client_id!r} to {topic_filter}: {explain_reason(code)}"
    return SubscriptionRefused(what, topic=topic_filter, reason_code=code)
