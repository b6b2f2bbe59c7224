"""Signatures of cards: JWS as in A2A 1.0, with the keys of ``mqtt-agent keys new`` or any other public key."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from os import PathLike, fspath
from pathlib import Path
from typing import Any, cast

from a2a.types import a2a_pb2 as a2a

try:
    from a2a.utils.signing import SignatureVerificationError, create_agent_card_signer, create_signature_verifier
    from jwt import PyJWK, PyJWKSet
    from jwt.exceptions import PyJWKError, PyJWTError
except ImportError as _error:  # pragma: no cover  (the tests install the extra)
    raise ImportError("signatures and tokens need another package: pip install 'a2a-mqtt-agent[auth]'") from _error

__all__ = ["ALGORITHMS", "CardNotTrusted", "SignatureVerificationError", "card_signer", "card_verifier", "keys_of"]

ALGORITHMS = ("EdDSA", "ES256", "ES384", "ES512", "PS256", "PS384", "PS512", "RS256", "RS384", "RS512")
"""The algorithms of signatures. All have a public key: with a shared secret, each reader could sign."""

Sign = Callable[[a2a.AgentCard], a2a.AgentCard]


class CardNotTrusted(ConnectionError):
    """The card of a remote agent has no signature of a trusted key."""


def keys_of(source: str | PathLike[str] | Mapping[str, Any]) -> dict[str, PyJWK]:
    """The public keys of a JWK or JWKS by their ids.

    Args:
        source: A file, or its JSON value.

    Raises:
        ValueError: There is no key, a key has no ``kid``, or a key is no public key of one of :data:`ALGORITHMS`.
        OSError: The file cannot be read.
    """
    name = "the JWKS" if isinstance(source, Mapping) else fspath(source)
    try:
        value: Any = source if isinstance(source, Mapping) else json.loads(Path(source).read_text(encoding="utf-8"))
        if not isinstance(value, Mapping):
            raise ValueError("a JWK or a JWKS is a JSON object")
        whole = cast("Mapping[str, Any]", value)
        keys = PyJWKSet.from_dict({"keys": whole.get("keys", [whole])}).keys
    except (ValueError, PyJWTError) as error:
        raise ValueError(f"{name} has no keys that can be used: {error}") from error
    found = {key.key_id: key for key in keys if key.key_id and key.algorithm_name in ALGORITHMS}
    if not found:
        raise ValueError(f"{name} has no public key with a 'kid'")
    return cast("dict[str, PyJWK]", found)


def card_signer(key: str | PathLike[str]) -> Sign:
    """A function that signs cards. It adds the signature to the card, and returns the card.

    Args:
        key: The JWK file of a private key, such as ``mqtt-agent keys new`` makes.

    Raises:
        ValueError: The file has no private key.
        OSError: The file cannot be read.
    """
    [(kid, jwk), *others] = keys_of(key).items()
    written: dict[str, Any] = json.loads(Path(key).read_text(encoding="utf-8"))
    if others or "d" not in written:
        raise ValueError(f"{fspath(key)} has no private key, or has several")
    header: Any = {"kid": kid, "alg": jwk.algorithm_name, "typ": "JOSE"}
    return create_agent_card_signer(jwk, header)


def card_verifier(trusted: Sequence[str | PathLike[str]]) -> Callable[[a2a.AgentCard], None]:
    """A function that refuses a card without a signature of a trusted key.

    The address of keys that a card itself names is never used: whoever changes the card could change the address too.

    Args:
        trusted: JWK or JWKS files with public keys.

    Raises:
        ValueError: A file has no public key.
        OSError: A file cannot be read.
    """
    keys = {kid: key for each in trusted for kid, key in keys_of(each).items()}

    def key_of(kid: str | None, jku: str | None) -> PyJWK:
        if kid not in keys:
            raise PyJWKError("this key is not trusted")
        return keys[kid]

    verify = create_signature_verifier(key_of, list(ALGORITHMS))

    def check(card: a2a.AgentCard) -> None:
        try:
            verify(card)
        except SignatureVerificationError as error:
            raise CardNotTrusted(f"the card of {card.name!r:.80} has no signature of a trusted key: {error}") from error

    return check
