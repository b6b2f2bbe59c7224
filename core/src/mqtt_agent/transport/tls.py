"""TLS settings: which certificates are trusted, and which certificate this client shows."""

from __future__ import annotations

import logging
import os
import ssl
from dataclasses import dataclass, field

from mqtt_agent.logs import logger_of

__all__ = ["TLS", "Certificates", "tls_context"]

logger: logging.Logger = logger_of(__name__)


@dataclass(frozen=True)
class TLS:
    """Certificates as files, all in PEM format.

    A connection reads files that have changed again before it connects again, so certificates can be renewed.

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


class Certificates:
    """The SSL context of a connection, which follows the files of its certificates.

    Args:
        tls: An SSL context of the program's own, which stays as it is, or the files.

    Raises:
        OSError: See :func:`tls_context`.
    """

    def __init__(self, tls: ssl.SSLContext | TLS | None) -> None:
        self._tls = tls
        self._seen = self._states()
        self._context = tls_context(tls)

    def context(self) -> ssl.SSLContext:
        """The context for the next connection. While files that have changed cannot be used, the earlier ones count."""
        states = self._states()
        if states != self._seen:
            self._seen = states
            try:
                self._context = tls_context(self._tls)
            except OSError as error:
                logger.warning("certificates have changed and cannot be used, so the earlier ones are used: %s", error)
            else:
                logger.info("certificates have changed, and are used from now on")
        return self._context

    def _states(self) -> list[tuple[int, ...]]:
        """What changes when a file, or the file behind a link, is replaced or written."""
        if not isinstance(self._tls, TLS):
            return []
        return [_state(path) for path in (self._tls.ca, self._tls.certificate, self._tls.key) if path is not None]


def _state(path: str | os.PathLike[str]) -> tuple[int, ...]:
    try:
        found = os.stat(path)
    except OSError:
        return ()
    return found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns


def _path(path: str | os.PathLike[str] | None) -> str:
    return repr(os.fspath(path)) if path is not None else "None"


def _tls_error(error: OSError, what: str, problem: str) -> OSError:
    if isinstance(error, ssl.SSLError):
        return OSError(f"{what}: {problem} ({error.reason or error})")
    return type(error)(error.errno, f"{what}: {error.strerror}")
