"""Why no MQTT broker answers, or why the broker refuses the login, and what to do."""

from __future__ import annotations

import asyncio
import contextlib
import ssl

from mqtt_agent.aio.waiting import within
from mqtt_agent.cli.doctor.findings import Finding
from mqtt_agent.errors import BrokerNotSupported, ConnectionRefused, TransportError
from mqtt_agent.transport import BrokerURL

__all__ = ["about_failure"]

_ANSWERS_WITHIN = 2.0
"""Seconds to wait for what another program says on the port."""
_OTHER_NAME = (62, 64)  # OpenSSL's X509_V_ERR_ codes for a certificate of another host name or address
_OTHER_TIME = (9, 10)  # not yet valid, and expired
_UNKNOWN_AUTHORITY = (18, 19, 20, 21)


async def about_failure(error: TransportError, url: BrokerURL) -> Finding:
    """Describe an error of the first connect.

    Args:
        error: The error of ``Connection.start``.
        url: The broker's URL.
    """
    cause = error.__cause__
    if isinstance(error, ConnectionRefused):
        step = "check --user with --password-file or --token-file, and what the broker allows this user"
        return Finding("login", "wrong", str(error), step)
    if isinstance(error, BrokerNotSupported):
        return Finding("broker", "wrong", str(error), "use another broker: docs/brokers.md lists those that work")
    if isinstance(cause, ssl.SSLCertVerificationError):
        return Finding("broker", "wrong", str(error), _about_certificate(cause, url))
    return Finding("broker", "wrong", str(error), await _about_port(cause, url))


def _about_certificate(error: ssl.SSLCertVerificationError, url: BrokerURL) -> str:
    if error.verify_code in _OTHER_NAME:
        return (
            f"write a name of the certificate in place of {url.host} in --broker, or give the broker a certificate "
            f"with the name {url.host} as subjectAltName. These are the names that it has now: openssl s_client "
            f"-connect {url.host}:{url.port} </dev/null | openssl x509 -noout -ext subjectAltName"
        )
    if error.verify_code in _UNKNOWN_AUTHORITY:
        return "name the certificate authority of the broker with --ca FILE"
    if error.verify_code in _OTHER_TIME:
        return "give the broker a certificate that is valid today, and check the clock of this machine"
    return "check the certificate of the broker, and --ca"


async def _about_port(cause: BaseException | None, url: BrokerURL) -> str:
    if isinstance(cause, ConnectionRefusedError):
        return "start a broker with 'mqtt-agent broker', or name yours with --broker URL"
    spoken = await _spoken(url)
    place = f"{url.host}:{url.port}"
    if spoken == "TLS" and not url.tls:
        return f"the port speaks TLS: try --broker {'wss' if url.websocket else 'mqtts'}://{place}"
    if spoken == "HTTP":
        return f"the port speaks HTTP, so it belongs to a web server or to MQTT over WebSocket: try --broker ws://{place}/mqtt"
    if spoken == "nothing":
        return f"check the host and the port: nobody can be reached at {place} from this machine"
    if url.tls and spoken != "TLS":
        return f"the port does not speak TLS: try --broker {'ws' if url.websocket else 'mqtt'}://{place}"
    return "check the port: another program listens there, or a broker that speaks only MQTT 3.1.1"


async def _spoken(url: BrokerURL) -> str | None:
    """What the port speaks: ``TLS``, ``HTTP``, ``nothing`` when nobody can be reached, or None for anything else."""
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE  # nothing is said on this connection
    try:
        if await _answer(url, b"", context) is not None:
            return "TLS"
        said = await _answer(url, b"GET / HTTP/1.0\r\n\r\n", None)
    except OSError:
        return "nothing"
    return "HTTP" if said is not None and said.startswith(b"HTTP/") else None


async def _answer(url: BrokerURL, question: bytes, context: ssl.SSLContext | None) -> bytes | None:
    """What a server answers, or None when TLS or the answer fails.

    Raises:
        OSError: No program can be reached.
    """
    try:
        reader, writer = await within(asyncio.open_connection(url.host, url.port, ssl=context), _ANSWERS_WITHIN)
    except (ssl.SSLError, ConnectionResetError, asyncio.TimeoutError):
        return None if context is not None else b""
    try:
        if not question:
            return b""
        writer.write(question)
        return await within(reader.read(100), _ANSWERS_WITHIN)
    except (OSError, asyncio.TimeoutError):
        return None
    finally:
        writer.close()
        with contextlib.suppress(OSError, asyncio.TimeoutError):
            await within(writer.wait_closed(), _ANSWERS_WITHIN)
