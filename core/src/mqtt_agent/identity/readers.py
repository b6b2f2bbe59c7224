"""Who checks the signatures of batches, as far as the signers have said it themselves."""

from __future__ import annotations

from collections.abc import Collection

from mqtt_agent.identity.keys import PublicKey

__all__ = ["Readers"]

_MOST_NAMES = 100_000


class Readers:
    """Learns from verified messages which names check the signatures of batches.

    A name that has once proven a message of a program that does not check them gets none any more: several programs may
    have the name. So a message that somebody sends again can take batches away. It can give them only to a name whose
    programs have all gone back to an earlier version, and only until the next message of this name.
    """

    def __init__(self) -> None:
        self._names: dict[str, bool] = {}

    def learn(self, key: PublicKey, reads: bool) -> None:
        """Note a verified message.

        Args:
            key: The key that has signed the message.
            reads: Whether the message says that its signer checks the signatures of batches.
        """
        names = self._names
        if not key.names and names.get(key.name) is reads:
            return
        for name in (key.name, *key.names):
            if names.get(name) is not reads and (name in names or len(names) < _MOST_NAMES):
                names[name] = reads and names.get(name, True)

    def read_batches(self, names: Collection[str]) -> bool:
        """Whether all endpoints of these names check the signatures of batches; False when there are no names."""
        said = self._names
        for name in names:
            if said.get(name) is not True or ":" in name:
                return all(map(self._reads, names))
        return bool(names)

    def _reads(self, name: str) -> bool:
        # A key stands for the replicas of its name too, and a replica may have a key of its own.
        said = self._names.get(name), self._names.get(name.partition(":")[0])
        return True in said and False not in said
