"""A Merkle tree (RFC 9162) over the messages of a batch, so that one signature of its root covers all of them."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import NamedTuple

__all__ = ["MAX_BATCH", "MAX_PATH", "Inclusion", "ProvenNodes", "Tree", "batch_bytes", "leaf_of"]

ProvenNodes = dict[int, tuple[bytes, bytes]]
"""Nodes of a tree that lead to its proven root: each with the path that leads there, by their places in the tree."""

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

    def climb(self, leaf: bytes, known: ProvenNodes, found: ProvenNodes) -> bytes | None:
        """Go from a leaf up to the root of the tree, or up to a node that is known.

        Messages of one batch arrive together, and the path of one has the nodes on the way of others. So most of them
        need one hash, and not five.

        Args:
            leaf: The leaf.
            known: The nodes that lead to a proven root in a tree of this size.
            found: Takes the nodes that lead to the same root as this leaf. They belong to ``known`` when it is proven.

        Returns:
            The root; None when the leaf leads to the proven root, by exactly this path.

        Raises:
            ValueError: The size or the number is not one of a batch, or the path has another length.
        """
        size, number, path = self
        node, last, at, level = leaf, size - 1, 0, 0
        if not 0 <= number <= last < MAX_BATCH or not last:
            raise ValueError(f"a batch has 2 to {MAX_BATCH} messages, and no message {self.number} of {size}")
        while last:
            rest, place = path[at:], level | number
            if known.get(place) == (node, rest):
                return None
            found[place] = (node, rest)
            if number & 1:
                at += _HASH_BYTES
                beside = rest[:_HASH_BYTES]
                found[place - 1] = (beside, node + path[at:])
                node = _sha256(_NODE + beside + node).digest()
            elif number < last:  # otherwise the node has no neighbour, and is also the node above
                at += _HASH_BYTES
                beside = rest[:_HASH_BYTES]
                found[place + 1] = (beside, node + path[at:])
                node = _sha256(_NODE + node + beside).digest()
            number, last, level = number >> 1, last >> 1, level + MAX_BATCH
        if at != len(path):
            raise ValueError(f"the path of message {self.number} of {size} does not have {len(path)} bytes")
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
