"""TLS of the gateway, with the certificates of clients."""

from __future__ import annotations

import asyncio
import os
import ssl
from collections.abc import Mapping
from dataclasses import dataclass
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any

from starlette.types import ASGIApp, Receive, Scope, Send
from typing_extensions import override
from uvicorn.protocols.http.h11_impl import H11Protocol

if TYPE_CHECKING:
    import grpc

__all__ = ["CERTIFICATE", "ServerTLS", "common_name"]

CERTIFICATE = "mqtt-agent/certificate"
"""The key of an ASGI scope with the common name in the client's certificate, which TLS has verified."""


@dataclass(frozen=True)
class ServerTLS:
    """The certificate of the gateway, and whose clients' certificates it accepts.

    Attributes:
        certificate: The PEM file of the gateway's certificate, with the certificates of its issuers.
        key: The PEM file of the private key.
        client_ca: The PEM file of the authority that signs the certificates of clients; None means that clients have no
            certificates. A client may come without a certificate, and prove in another way who it is.
    """

    certificate: str | PathLike[str]
    key: str | PathLike[str]
    client_ca: str | PathLike[str] | None = None

    def check(self) -> None:
        """Read the files, so that a mistake is found before the gateway listens.

        Raises:
            ValueError: The files have no certificate with its private key, or no authority, as PEM.
            OSError: A file cannot be read.
        """
        for path in (self.certificate, self.key, self.client_ca):
            if path is not None:
                Path(path).read_bytes()
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        try:
            context.load_cert_chain(self.certificate, self.key)
        except ssl.SSLError as error:
            names = f"{os.fspath(self.certificate)} and {os.fspath(self.key)}"
            raise ValueError(f"{names} are no certificate with its private key (PEM): {error}") from error
        if self.client_ca is not None:
            try:
                context.load_verify_locations(self.client_ca)
            except ssl.SSLError as error:
                raise ValueError(f"{os.fspath(self.client_ca)} has no certificates (PEM): {error}") from error

    def for_uvicorn(self) -> dict[str, Any]:
        """The arguments of a ``uvicorn.Config``."""
        given = {"ssl_certfile": self.certificate, "ssl_keyfile": self.key, "http": _WithCertificate}
        if self.client_ca is not None:
            given |= {"ssl_ca_certs": str(self.client_ca), "ssl_cert_reqs": ssl.CERT_OPTIONAL}
        return given

    def for_grpc(self) -> grpc.ServerCredentials:
        """The credentials of a gRPC server. With ``client_ca``, each client over gRPC needs a certificate.

        Raises:
            OSError: A file cannot be read.
        """
        import grpc

        ca = None if self.client_ca is None else Path(self.client_ca).read_bytes()
        pair = (Path(self.key).read_bytes(), Path(self.certificate).read_bytes())
        return grpc.ssl_server_credentials([pair], ca, require_client_auth=ca is not None)


def common_name(certificate: Mapping[str, Any] | None) -> str | None:
    """The common name in a certificate of :meth:`ssl.SSLSocket.getpeercert`; None when it has none, or several."""
    subject = (certificate or {}).get("subject", ())
    names = [value for part in subject for key, value in part if key == "commonName"]
    return names[0] if len(names) == 1 else None


class _WithCertificate(H11Protocol):
    """Puts the common name of the client's certificate into the scope of each request."""

    @override
    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        name, app = common_name(transport.get_extra_info("peercert")), self.app

        async def with_certificate(scope: Scope, receive: Receive, send: Send) -> None:
            await app({**scope, CERTIFICATE: name}, receive, send)

        wrapped: ASGIApp = with_certificate
        self.app = wrapped  # pyright: ignore[reportAttributeAccessIssue]
