"""Keys: the private key with which an endpoint signs, and the public keys that it trusts, as JWK files."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from mqtt_agent.identity.files import write_new_secret, write_whole
from mqtt_agent.identity.signatures import decode_base64, encode_base64
from mqtt_agent.wire import validate_identifier

try:
    from nacl.bindings import crypto_sign, crypto_sign_BYTES, crypto_sign_open, crypto_sign_seed_keypair
    from nacl.exceptions import BadSignatureError
except ImportError as _missing:  # pragma: no cover  (the tests install the extra)
    raise ImportError("signatures need PyNaCl: pip install 'mqtt-agent[signed]'") from _missing

__all__ = ["PrivateKey", "PublicKey", "TrustedKeys"]


class PublicKey:
    """The public half of a key, and the name that the key stands for.

    Args:
        name: Whoever signs with the key: an agent id, a client id or a server id.
        data: The 32 bytes of the Ed25519 key.
        names: Further names that the key proves, such as the servers that an agent hosts. A name stands for its
            replicas too: ``weather`` proves ``weather:1``.
        serves: The names of the tools that the owner may offer and answer; None means every tool.
        issuer: Whether the key makes statements about the keys of others, and signs no messages.

    Attributes:
        name: The name.
        names: The further names.
        serves: The names of the tools; None means every tool.
        issuer: Whether the key makes statements.
        data: The 32 bytes.
        kid: The key's id: its RFC 7638 thumbprint.

    Raises:
        InvalidIdentifier: The name cannot be a level of a topic.
        ValueError: The bytes are not an Ed25519 key.
    """

    def __init__(
        self,
        name: str,
        data: bytes,
        names: Iterable[str] = (),
        serves: Iterable[str] | None = None,
        *,
        issuer: bool = False,
    ) -> None:
        self.name: str = validate_identifier(name, "name of a key")
        self.names: frozenset[str] = frozenset(validate_identifier(each, "name of a key") for each in names)
        self.serves: frozenset[str] | None = (
            None if serves is None else frozenset(validate_identifier(each, "tool name") for each in serves)
        )
        self.issuer: bool = issuer
        self.data: bytes = _checked(data)
        required = json.dumps({"crv": "Ed25519", "kty": "OKP", "x": encode_base64(data)}, separators=(",", ":"))
        self.kid: str = encode_base64(hashlib.sha256(required.encode()).digest())

    def __eq__(self, other: object) -> bool:
        return isinstance(other, PublicKey) and (self.name, self.kid) == (other.name, other.kid)

    def __hash__(self) -> int:
        return hash((self.name, self.kid))

    def __repr__(self) -> str:
        return f"<PublicKey {self.kid[:8]} of {self.name}>"

    def verifies(self, value: bytes, signed: bytes) -> bool:
        """Whether ``value`` is the signature of ``signed`` by this key."""
        if len(value) != crypto_sign_BYTES:
            return False
        try:
            crypto_sign_open(value + signed, self.data)
        except BadSignatureError:
            return False
        return True

    def pinned(self, serves: Iterable[str]) -> PublicKey:
        """The same key for an owner that may offer only these tools."""
        return PublicKey(self.name, self.data, self.names, serves)

    def without(self, names: Iterable[str]) -> PublicKey:
        """The same key without some of its further names."""
        return PublicKey(self.name, self.data, self.names.difference(names), self.serves)

    def as_issuer(self) -> PublicKey:
        """The same key as that of an issuer, whose statements about the keys of others are believed."""
        return PublicKey(self.name, self.data, issuer=True)

    def to_jwk(self) -> dict[str, Any]:
        """The key as a JWK.

        ``sub`` is the name, ``names`` has the further names, if any, ``serves`` the tools, unless all are allowed, and
        ``issuer`` is true for the key of an issuer (ours).
        """
        jwk: dict[str, Any] = {"kty": "OKP", "crv": "Ed25519", "x": encode_base64(self.data), "kid": self.kid}
        jwk["sub"] = self.name
        if self.names:
            jwk["names"] = sorted(self.names)
        if self.serves is not None:
            jwk["serves"] = sorted(self.serves)
        if self.issuer:
            jwk["issuer"] = True
        return jwk

    @classmethod
    def from_jwk(cls, jwk: Mapping[str, Any]) -> PublicKey:
        """Read a JWK.

        Raises:
            ValueError: The JWK is not an Ed25519 key, or does not name whom the key stands for.
        """
        name = _name_in(jwk)
        serves = _names_in(jwk, "serves") if "serves" in jwk else None
        return cls(name, _bytes_in(jwk, "x"), _names_in(jwk, "names"), serves, issuer=jwk.get("issuer") is True)

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> PublicKey:
        """Read a JWK file. The file of a private key has the public half too.

        Raises:
            ValueError: The file is not an Ed25519 key with the name of its owner.
            OSError: The file cannot be read.
        """
        try:
            return cls.from_jwk(_read(path))
        except ValueError as error:
            raise ValueError(f"{os.fspath(path)} is not a key: {error}") from error


class PrivateKey:
    """A key with which an endpoint signs its messages.

    Example:
        >>> key = PrivateKey.new("agent-a")
        >>> key.public.verifies(key.sign(b"text"), b"text")
        True

    Args:
        name: Whoever signs with the key: an agent id, a client id or a server id.
        seed: The 32 secret bytes of the Ed25519 key.
        names: Further names that the key proves; see :class:`PublicKey`.

    Attributes:
        public: The public half.

    Raises:
        InvalidIdentifier: The name cannot be a level of a topic.
        ValueError: The seed does not have 32 bytes.
    """

    def __init__(self, name: str, seed: bytes, names: Iterable[str] = ()) -> None:
        self._seed = _checked(seed)
        public, self._secret = crypto_sign_seed_keypair(self._seed)
        self.public: PublicKey = PublicKey(name, public, names)

    @classmethod
    def new(cls, name: str, names: Iterable[str] = ()) -> PrivateKey:
        """A key that nobody has used before."""
        return cls(name, os.urandom(32), names)

    @property
    def name(self) -> str:
        """Whoever signs with the key."""
        return self.public.name

    def __repr__(self) -> str:
        return f"<PrivateKey {self.public.kid[:8]} of {self.name}>"

    def sign(self, data: bytes) -> bytes:
        """The signature of ``data``, 64 bytes."""
        return crypto_sign(data, self._secret)[:crypto_sign_BYTES]

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the key to a JWK file that only its owner may read.

        Raises:
            FileExistsError: The file exists. A key is never overwritten.
            OSError: The file cannot be written.
        """
        jwk = {**self.public.to_jwk(), "d": encode_base64(self._seed)}
        write_new_secret(Path(path), json.dumps(jwk, indent=2) + "\n")

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> PrivateKey:
        """Read a JWK file.

        Raises:
            ValueError: The file is not a private Ed25519 key with the name of its owner.
            OSError: The file cannot be read.
        """
        jwk = _read(path)
        try:
            key = cls(_name_in(jwk), _bytes_in(jwk, "d"), _names_in(jwk, "names"))
            if jwk.get("x") != key.public.to_jwk()["x"]:
                raise ValueError("its public half 'x' does not belong to its private half 'd'")
        except ValueError as error:
            raise ValueError(f"{os.fspath(path)} is not a private key: {error}") from error
        return key


class TrustedKeys:
    """The public keys that an endpoint trusts. A name may have several keys, so that a key can be replaced.

    Args:
        keys: The keys of programs, and those of issuers.
    """

    def __init__(self, keys: Iterable[PublicKey] = ()) -> None:
        self._keys: dict[str, tuple[PublicKey, ...]] = {}
        self._issuers: tuple[PublicKey, ...] = ()
        self._pinned: set[str] = set()
        self._with_replicas: set[str] = set()
        """The servers of which a replica has a key of its own."""
        for key in keys:
            self.add(key)

    def __len__(self) -> int:
        return sum(map(len, self._keys.values())) + len(self._issuers)

    def __iter__(self) -> Iterator[PublicKey]:
        return (key for each in (*self._keys.values(), self._issuers) for key in each)

    @property
    def issuers(self) -> tuple[PublicKey, ...]:
        """The keys of issuers, whose statements about the keys of others are believed."""
        return self._issuers

    def add(self, key: PublicKey) -> None:
        """Trust a key. A key that is trusted already stays as it was, with the tools that were pinned to it."""
        keys = self._those_of(key)
        if key not in keys:
            self._keep(key, (*keys, key))

    def replace(self, key: PublicKey) -> None:
        """Trust a key with its tools and further names, also if it is trusted already."""
        self._keep(key, (*(each for each in self._those_of(key) if each != key), key))

    def _those_of(self, key: PublicKey) -> tuple[PublicKey, ...]:
        return self._issuers if key.issuer else self.of(key.name)

    def _keep(self, key: PublicKey, keys: tuple[PublicKey, ...]) -> None:
        if key.issuer:
            self._issuers = keys
            return
        self._keys[key.name] = keys
        names = {key.name, *key.names}
        self._pinned |= names
        self._with_replicas |= {each.partition(":")[0] for each in names if ":" in each}

    def pins(self, name: str) -> bool:
        """Whether a key of this name, of the server of which it is a replica, or of one of its replicas is trusted."""
        return name in self._with_replicas or not self._pinned.isdisjoint((name, name.partition(":")[0]))

    def of(self, name: str) -> tuple[PublicKey, ...]:
        """The keys of a name, without those of issuers; an empty tuple when no key of this name is trusted."""
        return self._keys.get(name, ())

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the keys to a JWKS file."""
        keys = [key.to_jwk() for key in self]
        write_whole(Path(path), json.dumps({"keys": keys}, indent=2) + "\n")

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> TrustedKeys:
        """Read a JWKS file.

        Raises:
            ValueError: The file is not a JWKS of Ed25519 keys with the names of their owners.
            OSError: The file cannot be read.
        """
        jwks = _read(path)
        found = jwks.get("keys")
        if not isinstance(found, list):
            raise ValueError(f'{os.fspath(path)} is not a JWKS: it has no list "keys"')
        trusted = cls()
        for number, jwk in enumerate(found):  # pyright: ignore[reportUnknownVariableType, reportUnknownArgumentType]
            try:
                trusted.add(PublicKey.from_jwk(jwk))  # pyright: ignore[reportUnknownArgumentType]
            except ValueError as error:
                raise ValueError(f"{os.fspath(path)}: key {number} cannot be used: {error}") from error
        return trusted


def _read(path: str | os.PathLike[str]) -> dict[str, Any]:
    try:
        value = json.loads(Path(path).read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{os.fspath(path)} is not JSON: {error}") from error
    if not isinstance(value, dict):
        raise ValueError(f"{os.fspath(path)} is not a JSON object")
    return value  # pyright: ignore[reportUnknownVariableType]


def _name_in(jwk: Mapping[str, Any]) -> str:
    if not isinstance(jwk, Mapping):  # pyright: ignore[reportUnnecessaryIsInstance]
        raise ValueError("it is not a JSON object")
    name = jwk.get("sub")
    if not isinstance(name, str):
        raise ValueError('it does not say whose key it is: add "sub" with the name')
    return name


def _names_in(jwk: Mapping[str, Any], member: str) -> list[str]:
    names: Any = jwk.get(member, [])
    if not isinstance(names, list) or not all(isinstance(each, str) for each in names):  # pyright: ignore[reportUnknownVariableType]
        raise ValueError(f'"{member}" is not a list of names')
    return names  # pyright: ignore[reportUnknownVariableType]


def _bytes_in(jwk: Mapping[str, Any], member: str) -> bytes:
    if jwk.get("kty") != "OKP" or jwk.get("crv") != "Ed25519":
        raise ValueError('it is not an Ed25519 key ("kty": "OKP", "crv": "Ed25519")')
    text = jwk.get(member)
    if not isinstance(text, str):
        raise ValueError(f'it has no "{member}"')
    return _checked(decode_base64(text))


def _checked(data: bytes) -> bytes:
    if len(data) != 32:
        raise ValueError(f"an Ed25519 key has 32 bytes, not {len(data)}")
    return data
