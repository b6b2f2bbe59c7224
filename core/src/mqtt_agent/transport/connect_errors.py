"""Translates connection errors of paho-mqtt, ssl and socket into messages that say what to do."""

from __future__ import annotations

import socket
import ssl

import paho.mqtt.client as paho

from mqtt_agent.errors import ConnectionRefused, TopicNotAuthorized, TransportError
from mqtt_agent.transport.message import Will
from mqtt_agent.transport.packets import ConnAck
from mqtt_agent.transport.reasons import NOT_AUTHORIZED, TOPIC_NAME_INVALID, explain_reason
from mqtt_agent.transport.url import BrokerURL

__all__ = ["WRONG_PORT", "explain", "refused"]

WRONG_PORT: str = "this port may need another scheme: mqtt://, mqtts://, ws:// or wss://"
"""A hint for a server that does not answer as expected."""
_LOGIN = "check the user name and the password or token, and what the broker allows this client"
_NO_LOGIN = "give credentials=Password(...) or Token(...), or put user:password@ before the host in the URL"
_UNKNOWN_AUTHORITY = (18, 19, 20, 21)  # OpenSSL's X509_V_ERR_ codes for a certificate chain without a trusted authority


def refused(url: BrokerURL, connack: ConnAck, *, anonymous: bool, will: Will | None = None) -> TransportError:
    """The error for a CONNACK with a reason code other than 0.

    Args:
        url: The broker's URL.
        connack: The packet.
        anonymous: Whether the CONNECT had neither user name nor password.
        will: The Last Will of the CONNECT.
    """
    code = connack.code
    if code == TOPIC_NAME_INVALID and will is not None:  # the only topic in a CONNECT
        what = f"{url} does not let this client have a Last Will on {will.topic}: {explain_reason(code, connack.said)}"
        return TopicNotAuthorized(what, topic=will.topic)
    advice = None
    if code in (0x86, 0x87):
        advice = _NO_LOGIN if anonymous else _LOGIN if code == NOT_AUTHORIZED else None
    what = f"{url} refused the connection: {explain_reason(code, connack.said, advice)}"
    return ConnectionRefused(what, reason_code=code)


def explain(error: BaseException) -> str:
    """Explain to the user why connecting failed before the broker answered.

    Args:
        error: The error of paho-mqtt, ssl or socket.
    """
    if isinstance(error, ssl.SSLCertVerificationError):
        advice = (
            "; name the certificate authority with tls=TLS(ca=...)" if error.verify_code in _UNKNOWN_AUTHORITY else ""
        )
        return f"the server's certificate was not accepted ({error.verify_message}){advice}"
    if isinstance(error, ssl.SSLError):
        reason = error.reason or str(error)
        if "CERTIFICATE_REQUIRED" in reason:
            return "the server asks for a client certificate; give tls=TLS(certificate=..., key=...)"
        if "ALERT" in reason and ("_CERTIFICATE" in reason or "UNKNOWN_CA" in reason):
            return f"the server did not accept the client certificate ({reason})"
        return f"TLS failed ({reason}); {WRONG_PORT}"
    if isinstance(error, socket.gaierror):
        return "the host name is not known"
    if isinstance(error, (TimeoutError, socket.timeout)):
        return "the connection timed out"
    if isinstance(error, ConnectionRefusedError):
        return (
            "no program listens at this port (connection refused); start a broker there, for example with "
            "'mqtt-agent broker', or check the host and the port"
        )
    if isinstance(error, ConnectionResetError):
        return f"the server closed the connection; {WRONG_PORT}"
    if isinstance(error, paho.WebsocketConnectionError):
        return f"the server does not speak WebSocket; {WRONG_PORT}"
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    return str(error) or type(error).__name__
