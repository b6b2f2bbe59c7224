"""A Merkle tree (RFC 9162) over the messages of a batch, so that one signature of its root covers all of them."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import NamedTuple

__all__ = ["MAX_BATCH", "MAX_PATH", "Inclusion", "Tree", "batch_bytes", "leaf_of"]

MAX_BATCH: int = 32
"""How many messages one signature covers at most (ours)."""

MAX_PATH: int = 5 * 32
"""The bytes of the longest path in a batch: a tree of 32 messages has five levels above them."""

_DOMAIN = b"16:mqtt-agent-sig 2"
_LEAF, _NODE = b"\x00", b"\x01"  # RFC 9162, 2.1.1: nobody can show a node of the tree as a message
_HASH_BYTES = 32
_sha256 = hashlib.sha256


class Inclusion(NamedTuple):
    """The proof that a message is one of those that a signature covers: an inclusion proof of RFC 9162, 2.1.3.

    Attributes:
        size: How many messages the signature covers.
        number: The number of the message among them, from 0.
        path: The hashes that lead from the message to the root of the tree, one after the other.
    """

    size: int
    number: int
    path: bytes

    def root(self, leaf: bytes) -> bytes:
        """The root of the tree, if the tree has this leaf at this place.

        Raises:
            ValueError: The size or the number is not one of a batch, or the path has another length.
        """
        node, number, last, at, path = leaf, self.number, self.size - 1, 0, self.path
        if not 0 <= number <= last < MAX_BATCH or not last:
            raise ValueError(f"a batch has 2 to {MAX_BATCH} messages, and no message {number} of {self.size}")
        while last:
            if number & 1:
                node = _sha256(_NODE + path[at : at + _HASH_BYTES] + node).digest()
                at += _HASH_BYTES
            elif number < last:  # otherwise the node has no neighbour, and is also the node above
                node = _sha256(_NODE + node + path[at : at + _HASH_BYTES]).digest()
                at += _HASH_BYTES
            number, last = number >> 1, last >> 1
        if at != len(path):
            raise ValueError(f"the path of message {self.number} of {self.size} does not have {len(path)} bytes")
        return node


class Tree:
    """The tree over the signed bytes of the messages of a batch.

    Args:
        signed: The signed bytes of each message, at least one.

    Attributes:
        size: How many messages there are.
        root: The root.
        paths: For each message, the path of its :class:`Inclusion`.
    """

    def __init__(self, signed: Sequence[bytes]) -> None:
        nodes = [leaf_of(each) for each in signed]
        levels: list[list[bytes]] = []
        while len(nodes) > 1:
            levels.append(nodes)
            above = [
                _sha256(_NODE + left + right).digest() for left, right in zip(nodes[::2], nodes[1::2], strict=False)
            ]
            if len(nodes) & 1:  # a node without a neighbour is also the node above
                above.append(nodes[-1])
            nodes = above
        self.size: int = len(signed)
        self.root: bytes = nodes[0]
        paths = [b""]
        for level in reversed(levels):
            last = len(level) - 1
            paths = [
                paths[at >> 1] if at == last and not at & 1 else level[at ^ 1] + paths[at >> 1]
                for at in range(last + 1)
            ]
        self.paths: list[bytes] = paths


def leaf_of(signed: bytes) -> bytes:
    """The leaf of the tree for the signed bytes of a message."""
    return _sha256(_LEAF + signed).digest()


def batch_bytes(size: int, root: bytes) -> bytes:
    """The bytes that the signature of a batch signs: never those of a single message, which begin otherwise."""
    return b"%b%d:%d32:%b" % (_DOMAIN, 1 if size < 10 else 2, size, root)
