"""Certificates for tests of TLS, made with the ``openssl`` program."""

from __future__ import annotations

import subprocess
from dataclasses import dataclass
from pathlib import Path

from brokers import find_program

_SETTINGS = """
[req]
distinguished_name = name
prompt = no
[name]
CN = {name}
[authority]
basicConstraints = critical, CA:TRUE
keyUsage = critical, keyCertSign, cRLSign
subjectKeyIdentifier = hash
[leaf]
basicConstraints = CA:FALSE
keyUsage = critical, digitalSignature
extendedKeyUsage = serverAuth, clientAuth
subjectKeyIdentifier = hash
authorityKeyIdentifier = keyid
subjectAltName = {alternatives}
"""


@dataclass(frozen=True)
class Certificate:
    """A certificate and its private key, as PEM files."""

    certificate: Path
    key: Path


class Authority:
    """A certificate authority for one test.

    Args:
        folder: The folder for its files; the folder is created.
        name: The common name of the authority.
    """

    def __init__(self, folder: Path, name: str) -> None:
        self._folder = folder
        folder.mkdir()
        self._own = self._files("authority")
        settings = self._settings(name, "DNS:unused")
        self._openssl(
            *("req", "-x509", "-config", settings, "-extensions", "authority", "-days", "2"),
            *("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"),
            *("-keyout", self._own.key, "-out", self._own.certificate),
        )

    @staticmethod
    def missing() -> str | None:
        """The name of the missing program, or None if it is installed."""
        return None if find_program("openssl") else "openssl"

    @property
    def certificate(self) -> Path:
        """The certificate that clients need to trust this authority."""
        return self._own.certificate

    def issue(self, name: str, alternatives: str = "DNS:unused") -> Certificate:
        """Sign a certificate.

        Args:
            name: The common name of the certificate, and the name of its files.
            alternatives: The subject alternative names, such as ``IP:127.0.0.1``.
        """
        files, settings, request = self._files(name), self._settings(name, alternatives), self._folder / f"{name}.csr"
        self._openssl(
            *("req", "-new", "-config", settings, "-out", request),
            *("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-keyout", files.key),
        )
        self._openssl(
            *("x509", "-req", "-in", request, "-CA", self._own.certificate, "-CAkey", self._own.key),
            *("-CAcreateserial", "-days", "2", "-extfile", settings, "-extensions", "leaf", "-out", files.certificate),
        )
        return files

    def encrypt(self, certificate: Certificate, password: str) -> Certificate:
        """The same certificate, with a private key that needs a password."""
        key = certificate.key.with_suffix(".encrypted.key")
        self._openssl("pkey", "-in", certificate.key, "-aes256", "-passout", f"pass:{password}", "-out", key)
        return Certificate(certificate.certificate, key)

    def _files(self, name: str) -> Certificate:
        return Certificate(self._folder / f"{name}.pem", self._folder / f"{name}.key")

    def _settings(self, name: str, alternatives: str) -> Path:
        path = self._folder / f"{name}.cnf"
        path.write_text(_SETTINGS.format(name=name, alternatives=alternatives))
        return path

    def _openssl(self, *arguments: str | Path) -> None:
        subprocess.run([find_program("openssl") or "openssl", *arguments], check=True, capture_output=True, timeout=30)
