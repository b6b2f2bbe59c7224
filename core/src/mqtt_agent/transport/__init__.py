"""MQTT 5 on asyncio: the shared connection, its credentials and TLS settings, and an embedded broker."""

from mqtt_agent.transport.capabilities import Capabilities
from mqtt_agent.transport.connection import Connection
from mqtt_agent.transport.credentials import Credentials, IssuedToken, Password, Token
from mqtt_agent.transport.denials import tell_if_denied, tell_when_denied
from mqtt_agent.transport.embedded import EmbeddedBroker
from mqtt_agent.transport.message import (
    InboundMessage,
    MessageAudit,
    MessageBatches,
    MessageIdentity,
    MessageScreen,
    Proof,
    PublishProperties,
    Refusal,
    UnsignedMessage,
    Verify,
    Will,
)
from mqtt_agent.transport.paced import PacedSender
from mqtt_agent.transport.probing import probe
from mqtt_agent.transport.reasons import NO_MATCHING_SUBSCRIBERS, check_reason_code
from mqtt_agent.transport.settings import Bound, BrokerSettings
from mqtt_agent.transport.tls import TLS
from mqtt_agent.transport.token_service import TokenService
from mqtt_agent.transport.url import BrokerURL

__all__ = [
    "NO_MATCHING_SUBSCRIBERS",
    "TLS",
    "Bound",
    "BrokerSettings",
    "BrokerURL",
    "Capabilities",
    "Connection",
    "Credentials",
    "EmbeddedBroker",
    "InboundMessage",
    "IssuedToken",
    "MessageAudit",
    "MessageBatches",
    "MessageIdentity",
    "MessageScreen",
    "PacedSender",
    "Password",
    "Proof",
    "PublishProperties",
    "Refusal",
    "Token",
    "TokenService",
    "UnsignedMessage",
    "Verify",
    "Will",
    "check_reason_code",
    "probe",
    "tell_if_denied",
    "tell_when_denied",
]
