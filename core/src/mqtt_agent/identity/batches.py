"""Batches: messages that leave in the same turn of the event loop are signed together, by one Ed25519 signature."""

from __future__ import annotations

from collections.abc import Callable, Collection

from mqtt_agent.identity.keys import PrivateKey
from mqtt_agent.identity.merkle import MAX_BATCH, Tree, batch_bytes
from mqtt_agent.identity.signatures import SIGNATURE_PROPERTY, batch_text, encode_base64, longest_of_batch
from mqtt_agent.transport import PublishProperties

__all__ = ["Batches", "InBatch"]


class _Batch:
    """The messages that one signature covers. The signature is made when the first of them leaves."""

    __slots__ = ("_key", "_paths", "_value", "sealed", "signed")

    def __init__(self, key: PrivateKey) -> None:
        self._key = key
        self._paths: list[bytes] = []
        self._value = ""
        self.signed: list[bytes] = []
        self.sealed: bool = False

    def text(self, number: int, stamps: str) -> str:
        """The signature of one message. A single message is signed as if there were no batches."""
        if not self.sealed:
            self._seal()
        if not self._paths:
            return f"1;{stamps};{self._value}"
        return batch_text(stamps, len(self._paths), number, self._paths[number], self._value)

    def _seal(self) -> None:
        self.sealed = True
        signed, self.signed = self.signed, []
        if len(signed) == 1:
            value = self._key.sign(signed[0])
        else:
            tree = Tree(signed)
            value, self._paths = self._key.sign(batch_bytes(tree.size, tree.root)), tree.paths
        self._value = encode_base64(value)


class InBatch:
    """A message of a batch that has not left yet.

    Attributes:
        properties: The MQTT properties of the message without its signature.
        longest: How many bytes the signature adds to the packet at most.
    """

    __slots__ = ("_batch", "_number", "_stamps", "longest", "properties")

    def __init__(self, batch: _Batch, stamps: str, properties: PublishProperties, longest: int) -> None:
        self._batch, self._number, self._stamps = batch, len(batch.signed) - 1, stamps
        self.properties: PublishProperties = properties
        self.longest: int = longest

    def sign(self) -> tuple[str, str]:
        """The user property with the signature. The batch takes no more messages then."""
        return SIGNATURE_PROPERTY, self._batch.text(self._number, self._stamps)


class Batches:
    """The batches of one connection, one after the other.

    Args:
        key: The key that signs.
        begin: Returns, for a topic, a payload and the properties of a message, the beginning of the text of a
            signature, the bytes that it signs, and the properties with everything except the signature.
        readers: Whether endpoints of these names check the signatures of batches.
    """

    def __init__(
        self,
        key: PrivateKey,
        begin: Callable[[str, bytes, PublishProperties], tuple[str, bytes, PublishProperties]],
        readers: Callable[[Collection[str]], bool],
    ) -> None:
        self._key = key
        self._begin = begin
        self._readers = readers
        self._batch = _Batch(key)
        self._longest = longest_of_batch(key.name)

    def add(
        self, topic: str, payload: bytes, properties: PublishProperties, readers: Collection[str]
    ) -> InBatch | None:
        """Add a message that is about to be sent.

        Args:
            topic: The topic.
            payload: The bytes of the message.
            properties: The MQTT properties of the message.
            readers: The names of all endpoints that act upon the message.

        Returns:
            The message in the batch; None when a reader may not know batches, so that the message is signed alone.
        """
        if not self._readers(readers):
            return None
        stamps, signed, properties = self._begin(topic, payload, properties)
        batch = self._batch
        if batch.sealed or len(batch.signed) == MAX_BATCH:
            batch = self._batch = _Batch(self._key)
        batch.signed.append(signed)
        return InBatch(batch, stamps, properties, self._longest)
