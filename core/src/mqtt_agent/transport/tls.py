"""TLS settings: which certificates are trusted, and which certificate this client shows."""

from __future__ import annotations

import os
import ssl
from dataclasses import dataclass, field

__all__ = ["TLS", "tls_context"]


@dataclass(frozen=True)
class TLS:
    """Certificates as files, all in PEM format.

    Args:
        ca: The certificates of the authorities that may have signed the broker's certificate; None trusts the
            authorities of the operating system.
        certificate: This client's own certificate, for brokers that ask for a certificate.
        key: The private key of ``certificate``.
        key_password: The password of ``key``, if it has one.
    """

    ca: str | os.PathLike[str] | None = None
    certificate: str | os.PathLike[str] | None = None
    key: str | os.PathLike[str] | None = None
    key_password: str | None = field(default=None, repr=False)


def tls_context(tls: ssl.SSLContext | TLS | None) -> ssl.SSLContext:
    """The SSL context that ``tls`` describes; None gives the defaults of the operating system.

    Raises:
        OSError: A file cannot be read, or is not a certificate or key, or the key's password is wrong or missing.
    """
    if isinstance(tls, ssl.SSLContext):
        return tls
    tls = tls or TLS()
    try:
        context = ssl.create_default_context(cafile=tls.ca)
    except OSError as error:  # the error of ssl does not name the file
        raise _tls_error(error, f"TLS(ca={_path(tls.ca)})", "is not a certificate in PEM format") from error
    if tls.certificate:
        try:
            # Without a password, OpenSSL would ask for a password in the terminal. An empty password prevents that.
            context.load_cert_chain(tls.certificate, tls.key, tls.key_password or "")
        except OSError as error:
            what = f"TLS(certificate={_path(tls.certificate)}, key={_path(tls.key)})"
            problem = "are not a certificate and its key in PEM format, or key_password is wrong or missing"
            raise _tls_error(error, what, problem) from error
    return context


def _path(path: str | os.PathLike[str] | None) -> str:
    return repr(os.fspath(path)) if path is not None else "None"


def _tls_error(error: OSError, what: str, problem: str) -> OSError:
    if isinstance(error, ssl.SSLError):
        return OSError(f"{what}: {problem} ({error.reason or error})")
    return type(error)(error.errno, f"{what}: {error.strerror}")
