"""A Merkle tree (RFC 9162) over the messages of a batch, so that one signature of its root covers all of them."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
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

    @classmethod
    def checked(cls, size: int, index: int, path: bytes) -> Inclusion:
        """The proof, if a tree of this size has it.

        Raises:
            ValueError: The size or the index is not one of a batch, or the path has another length.
        """
        if not 2 <= size <= MAX_BATCH:
            raise ValueError(f"a batch has 2 to {MAX_BATCH} messages, not {size}")
        if index >= size:
            raise ValueError(f"a batch of {size} messages has no message {index}")
        if len(path) != _path_length(size, index):
            raise ValueError(f"the path of message {index} of {size} does not have {len(path)} bytes")
        return cls(size, index, path)

    def root(self, leaf: bytes) -> bytes:
        """The root of the tree, if the tree has this leaf at the index."""
        node, index, last, at, path = leaf, self.number, self.size - 1, 0, self.path
        while last:
            if index & 1 or index < last:  # otherwise the node has no neighbour, and is also the node above
                other = path[at : at + _HASH_BYTES]
                at += _HASH_BYTES
                node = _sha256(_NODE + other + node if index & 1 else _NODE + node + other).digest()
            index, last = index >> 1, last >> 1
        return node


class Tree:
    """The tree over the signed bytes of the messages of a batch.

    Args:
        signed: The signed bytes of each message, at least one.
    """

    def __init__(self, signed: Sequence[bytes]) -> None:
        nodes = [leaf_of(each) for each in signed]
        self._levels = [nodes]
        while len(nodes) > 1:
            above = [_sha256(_NODE + left + right).digest() for left, right in _pairs(nodes)]
            if len(nodes) & 1:  # a node without a neighbour is also the node above
                above.append(nodes[-1])
            self._levels.append(above)
            nodes = above

    def to_bytes(self) -> bytes:
        """The bytes that the signature of the batch signs."""
        return batch_bytes(len(self._levels[0]), self._levels[-1][0])

    def inclusion(self, index: int) -> Inclusion:
        """The proof that a message is in the tree.

        Args:
            index: The number of the message, from 0.
        """
        path: list[bytes] = []
        at = index
        for level in self._levels[:-1]:
            if at ^ 1 < len(level):
                path.append(level[at ^ 1])
            at >>= 1
        return Inclusion(len(self._levels[0]), index, b"".join(path))


def leaf_of(signed: bytes) -> bytes:
    """The leaf of the tree for the signed bytes of a message."""
    return _sha256(_LEAF + signed).digest()


def batch_bytes(size: int, root: bytes) -> bytes:
    """The bytes that the signature of a batch signs: never those of a single message, which begin otherwise."""
    return b"%b%d:%d32:%b" % (_DOMAIN, 1 if size < 10 else 2, size, root)


def _pairs(nodes: Sequence[bytes]) -> Iterable[tuple[bytes, bytes]]:
    return zip(nodes[::2], nodes[1::2], strict=False)


def _path_length(size: int, index: int) -> int:
    length, last = 0, size - 1
    while last:
        if index & 1 or index < last:
            length += _HASH_BYTES
        index, last = index >> 1, last >> 1
    return length
