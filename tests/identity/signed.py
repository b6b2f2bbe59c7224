"""What a signature covers, and the tree of a batch, as tests write them."""

from __future__ import annotations

from typing import NamedTuple

from mqtt_agent.identity.merkle import Inclusion
from mqtt_agent.identity.signatures import signed_bytes


class Content(NamedTuple):
    """The parts of a message that a signature covers."""

    topic: str
    payload: bytes
    response_topic: str | None = None
    correlation_data: bytes | None = None
    content_type: str | None = None
    user_properties: tuple[tuple[str, str], ...] = ()

    def to_bytes(
        self, signer: str = "agent-a", signed_at: int = 1, expires_at: int = 0, nonce: str = "2.AAAA"
    ) -> bytes:
        return signed_bytes(signer, str(signed_at), str(expires_at), nonce, *self)


def root_of(inclusion: Inclusion, leaf: bytes) -> bytes:
    """The root of a tree that has this leaf, as a reader finds it who knows nothing of the tree."""
    root = inclusion.climb(leaf, {}, {})
    assert root is not None
    return root
