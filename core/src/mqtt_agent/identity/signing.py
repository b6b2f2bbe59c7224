"""Identity: signs what an endpoint sends, and checks who has signed what it receives."""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import get_args

from mqtt_agent.identity.batches import Batches
from mqtt_agent.identity.keys import PrivateKey, PublicKey, TrustedKeys
from mqtt_agent.identity.merkle import Inclusion, ProvenNodes, batch_bytes, leaf_of
from mqtt_agent.identity.readers import Readers
from mqtt_agent.identity.signatures import (
    SIGNATURE_PROPERTY,
    Signature,
    find_signature,
    longest_single,
    new_nonce,
    packed_size,
    signed_bytes,
    single_text,
)
from mqtt_agent.identity.statements import STATEMENT_PROPERTY, Statement, Statements
from mqtt_agent.logs import logger_of
from mqtt_agent.transport import InboundMessage, Proof, PublishProperties, Verify

__all__ = ["MAX_SKEW", "Identity"]

logger: logging.Logger = logger_of(__name__)

MAX_SKEW: int = 120
"""How many seconds the clocks of two computers may differ (ours)."""

_MOST_BATCHES = 256  # a batch is over when its messages have arrived, so the latest few are enough


class Identity:
    """The key of an endpoint, and the keys of others that the endpoint trusts.

    Give the same identity to all endpoints of one program::

        identity = Identity("weather.jwk", "trusted.jwks", verify="require")
        server = ToolServer("weather", identity=identity)

    Args:
        key: A private key, or the path of its JWK file; None signs nothing.
        trusted: The public keys of others, or the path of their JWKS file; None trusts only ``key``.
        verify: What happens with a message that is not signed by the sender that it names. ``"off"``: it is accepted,
            and the signature is not checked. ``"log"``: it is accepted, and a warning is logged once for each sender.
            ``"require"``: it is refused.
        clock: Returns the time in seconds since 1970.
        statement: The path of a file with the statement of an issuer about ``key``. It is sent with each message, for
            those who trust the issuer and not the key itself. None sends none.

    Attributes:
        key: The private key.
        trusted: The public keys.
        verify: The mode.

    Raises:
        ValueError: A file is not what it must be, ``statement`` is not about ``key``, or ``verify`` has another value.
        OSError: A file cannot be read.
    """

    def __init__(
        self,
        key: PrivateKey | str | os.PathLike[str] | None = None,
        trusted: TrustedKeys | str | os.PathLike[str] | None = None,
        *,
        verify: Verify = "log",
        clock: Callable[[], float] = time.time,
        statement: str | os.PathLike[str] | None = None,
    ) -> None:
        if verify not in get_args(Verify):
            raise ValueError(f"verify={verify!r} is not known: use one of {', '.join(map(repr, get_args(Verify)))}")
        self.key: PrivateKey | None = key if isinstance(key, PrivateKey) or key is None else PrivateKey.load(key)
        loaded = trusted if isinstance(trusted, TrustedKeys) or trusted is None else TrustedKeys.load(trusted)
        self.trusted: TrustedKeys = loaded or TrustedKeys()
        if self.key is not None:
            self.trusted.add(self.key.public)
        if verify == "require" and self.key is None:
            raise ValueError("verify='require' needs a key: whoever asks others for proof must sign too")
        self.verify: Verify = verify
        self._clock = clock
        self._readers = Readers()
        self._proven: dict[tuple[bytes, bytes, int], ProvenNodes] = {}
        """What is known of a batch, by its key, signature and size, so that its other messages need no check."""
        self._statements = Statements(self.trusted.issuers) if self.trusted.issuers else None
        self._statement = None if statement is None else _own_statement(statement, self.key)
        self._warned_from = float("inf") if self._statement is None else _warned_from(self._statement)
        self._sizes = (0, 0) if self.key is None else self._signature_sizes(self.key)
        """The bytes of a signature in a packet: of a message that does not expire, and of one that does."""

    @property
    def name(self) -> str | None:
        """The name that the endpoint proves; None without a private key."""
        return None if self.key is None else self.key.name

    @property
    def key_id(self) -> str | None:
        """The id of the private key; None without a private key."""
        return None if self.key is None else self.key.public.kid

    def __repr__(self) -> str:
        return f"<Identity of {self.name or 'nobody'}, verify={self.verify!r}, {len(self.trusted)} trusted keys>"

    def sign(self, topic: str, payload: bytes, properties: PublishProperties) -> PublishProperties:
        """Add a signature to a message.

        The signature is valid as long as the broker keeps the message: until its Message Expiry Interval is over.

        Args:
            topic: The topic.
            payload: The bytes of the message.
            properties: The MQTT properties of the message.

        Returns:
            The properties with the signature; the same properties when there is no private key.
        """
        if self.key is None:
            return properties
        stamps, signed, properties = self._begin(topic, payload, properties)
        return properties.adding((SIGNATURE_PROPERTY, single_text(stamps, self.key.sign(signed))))

    def batches(self) -> Batches | None:
        """Make the batches of one connection, for messages that leave in the same turn of the event loop.

        Returns:
            The batches; None when there is no private key.
        """
        return None if self.key is None else Batches(self.key, self._begin, self._readers.read_batches)

    def _begin(self, topic: str, payload: bytes, properties: PublishProperties) -> tuple[str, bytes, PublishProperties]:
        """The beginning of a signature's text, the bytes that it signs, and the properties without it."""
        assert self.key is not None
        name, expiry, now = self.key.public.name, properties.message_expiry, round(self._clock() * 1000)
        if now > self._warned_from:
            self._warn()
        at, until, nonce = str(now), "0" if expiry is None else str(now + expiry * 1000), new_nonce()
        about = properties.response_topic, properties.correlation_data, properties.content_type
        signed = signed_bytes(name, at, until, nonce, topic, payload, *about, properties.user_properties)
        return f"{name};{at};{until};{nonce}", signed, self._stating(properties)

    def reserve(self, properties: PublishProperties) -> int:
        """How many bytes the signature adds to the packet of a message that is signed alone, at most.

        Args:
            properties: The MQTT properties of the message.

        Returns:
            The number of bytes, up to four too many; 0 when there is no private key.
        """
        return self._sizes[properties.message_expiry is not None]

    def _stating(self, properties: PublishProperties) -> PublishProperties:
        """The properties with the own statement, if there is one."""
        return properties if self._statement is None else properties.adding((STATEMENT_PROPERTY, self._statement.text))

    def _signature_sizes(self, key: PrivateKey) -> tuple[int, int]:
        stated = 0 if self._statement is None else packed_size(STATEMENT_PROPERTY, self._statement.text)
        never, sometime = (longest_single(key.name, expires=expires) + stated for expires in (False, True))
        return never, sometime

    def _warn(self) -> None:
        """Warn once that the own statement ends soon."""
        assert self._statement is not None
        self._warned_from = float("inf")
        left = self._statement.expires_at - self._clock()
        logger.warning(
            "the statement about the key of %s ends in %.0f s, and then nobody believes its messages: start the "
            "program again with a new statement (mqtt-agent keys state)",
            *(self.name, left),
        )

    def check(self, message: InboundMessage) -> Proof:
        """Check the signature of a message.

        Returns:
            The name of the signer, or why no name is proven. Nothing is raised, whatever the message contains.
        """
        if self.verify == "off":
            return Proof(fault="signatures are not checked (verify='off')")
        try:
            text = find_signature(message.user_properties)
            if text is None:
                return Proof(fault="the message has no signature")
            signature = Signature.parse(text)
        except ValueError as error:
            return Proof(fault=str(error))
        fault = self._too_old_or_new(signature)
        if fault:
            return Proof(fault=fault)
        keys = self.trusted.of(signature.signer)
        if not keys:
            try:
                keys = (self._stated(signature.signer, message),)
            except ValueError as error:
                return Proof(fault=f"no key of {signature.signer!r:.80} is trusted{error}")
        signer, signed_at, expires_at, nonce, value, inclusion = signature
        signed = signed_bytes(
            *(signer, str(signed_at), str(expires_at), nonce, message.topic, message.payload),
            *(message.response_topic, message.correlation_data, message.content_type, message.user_properties),
        )
        leaf = b"" if inclusion is None else leaf_of(signed)
        try:
            for key in keys:
                if inclusion is None:
                    proven = key.verifies(value, signed)
                else:
                    proven = self._includes(key, value, inclusion, leaf)
                if proven:
                    self._readers.learn(key, signature.reads_batches)
                    return Proof(signer, signed_at, "", key.names, key.kid, key.serves)
        except ValueError as error:  # the path is not one
            return Proof(fault=str(error))
        return Proof(fault=f"the signature is not by a trusted key of {signer!r:.80}, or the message was changed")

    def _includes(self, key: PublicKey, value: bytes, inclusion: Inclusion, leaf: bytes) -> bool:
        """Whether a key has signed a batch that has a message.

        Raises:
            ValueError: The path from the message to the root of the batch cannot be one.
        """
        batch = key.data, value, inclusion.size
        found: ProvenNodes = {}
        known = self._proven.get(batch)
        root = inclusion.climb(leaf, known or {}, found)
        if root is not None and not key.verifies(value, batch_bytes(inclusion.size, root)):
            return False
        if known is not None:
            known.update(found)
            return True
        if len(self._proven) >= _MOST_BATCHES:
            del self._proven[next(iter(self._proven))]
        self._proven[batch] = found
        return True

    def _stated(self, signer: str, message: InboundMessage) -> PublicKey:
        """The key that the statement in a message says the signer has. The names of trusted keys are not taken away.

        Raises:
            ValueError: There is no such statement; the text is the end of a sentence.
        """
        found = [value for name, value in message.user_properties if name == STATEMENT_PROPERTY]
        if self._statements is None or not found or self.trusted.pins(signer):
            raise ValueError("")
        if len(found) > 1:
            raise ValueError(f", and the message has {len(found)} statements")
        try:
            key = self._statements.read(found[0], signer, self._clock(), MAX_SKEW).key
        except ValueError as error:
            raise ValueError(f", and the statement about its key does not count: {error}") from error
        taken = [name for name in key.names if self.trusted.pins(name)]
        return key.without(taken) if taken else key

    def _too_old_or_new(self, signature: Signature) -> str:
        now = self._clock() * 1000
        if signature.signed_at > now + MAX_SKEW * 1000:
            ahead = (signature.signed_at - now) / 1000
            return f"the message was signed {ahead:,.0f} s in the future: set the clocks of both computers"
        if signature.expires_at and signature.expires_at < now - MAX_SKEW * 1000:
            return f"the message expired {(now - signature.expires_at) / 1000:,.0f} s ago"
        return ""


def _own_statement(path: str | os.PathLike[str], key: PrivateKey | None) -> Statement:
    """Read the statement about an own key.

    Raises:
        ValueError: The file has no statement, or it is about another key.
        OSError: The file cannot be read.
    """
    if key is None:
        raise ValueError("a statement is about a key: give the key too")
    try:
        statement = Statement.read(Path(path).read_text(encoding="utf-8").strip(), key.name)
        if statement.key.data != key.public.data:
            raise ValueError(f"it is about another key of {key.name}")
    except ValueError as error:
        raise ValueError(f"{os.fspath(path)} is not a statement about the key of {key.name}: {error}") from error
    return statement


def _warned_from(statement: Statement) -> float:
    """When a tenth of the time of a statement is left, in milliseconds since 1970."""
    return 1000 * (statement.expires_at - (statement.expires_at - statement.not_before) / 10)
