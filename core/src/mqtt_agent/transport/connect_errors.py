"""Why a broker could not be reached, in words that tell what to do about it."""

from __future__ import annotations

import socket
import ssl
from typing import Any

import paho.mqtt.client as paho

from mqtt_agent.errors import ConnectionRefused
from mqtt_agent.transport.url import BrokerURL

__all__ = ["WRONG_PORT", "explain", "refused"]

WRONG_PORT = "is this port for another one of mqtt://, mqtts://, ws:// and wss://?"
_ADVICE = {  # by reason code of the CONNACK
    0x84: "it must speak MQTT 5",
    0x85: "choose another client id",
    0x86: "check the user name and the password or token",
    0x87: "check the user name and the password or token, and what the broker allows this client",
}
_NO_LOGIN = "give credentials=Password(...) or Token(...), or put user:password@ before the host in the URL"
_UNKNOWN_AUTHORITY = (18, 19, 20, 21)  # OpenSSL's X509_V_ERR_ for chains that end at nobody we trust


def refused(url: BrokerURL, reason: Any, *, anonymous: bool) -> ConnectionRefused:
    """What the reason code of a CONNACK from 0x80 stands for.

    Args:
        url: The broker.
        reason: paho-mqtt's reason code.
        anonymous: Whether we gave neither user name nor password.
    """
    what = f"{url} refused the connection: {reason} (0x{reason.value:02x})"
    advice = _NO_LOGIN if anonymous and reason.value in (0x86, 0x87) else _ADVICE.get(reason.value)
    what += f"; {advice}" if advice else ""
    return ConnectionRefused(what, reason_code=reason.value)


def explain(error: BaseException) -> str:
    """What went wrong before the broker could answer."""
    if isinstance(error, ssl.SSLCertVerificationError):
        advice = "; name who signed it with tls=TLS(ca=...)" if error.verify_code in _UNKNOWN_AUTHORITY else ""
        return f"its certificate was not accepted ({error.verify_message}){advice}"
    if isinstance(error, ssl.SSLError):
        reason = error.reason or str(error)
        if "CERTIFICATE_REQUIRED" in reason:
            return "it asks for a certificate of ours; give tls=TLS(certificate=..., key=...)"
        if "ALERT" in reason and ("_CERTIFICATE" in reason or "UNKNOWN_CA" in reason):
            return f"it did not accept our certificate ({reason})"
        return f"TLS failed ({reason}); {WRONG_PORT}"
    if isinstance(error, socket.gaierror):
        return "the host name is not known"
    if isinstance(error, (TimeoutError, socket.timeout)):
        return "the connection timed out"
    if isinstance(error, ConnectionResetError):
        return f"it closed the connection; {WRONG_PORT}"
    if isinstance(error, paho.WebsocketConnectionError):
        return f"it does not speak WebSocket; {WRONG_PORT}"
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    return str(error) or type(error).__name__
