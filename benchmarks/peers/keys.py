"""The identities of the signed programs. Their keys follow from their names, so the processes need no key files."""

from __future__ import annotations

import hashlib

from mqtt_agent.identity import Identity, PrivateKey, TrustedKeys


def identity_of(name: str, *, trusts: str) -> Identity:
    """The identity of one program, which requires proof and trusts one other program.

    Args:
        name: The name of the program.
        trusts: The name of the other program.
    """
    return Identity(_key(name), TrustedKeys([_key(trusts).public]), verify="require")


def _key(name: str) -> PrivateKey:
    return PrivateKey(name, hashlib.sha256(name.encode()).digest())
