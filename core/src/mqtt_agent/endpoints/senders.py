"""Whether a message is by the sender that it names: what an endpoint asks its identity for each message."""

from __future__ import annotations

import logging

from mqtt_agent.transport import InboundMessage, MessageIdentity

__all__ = ["Senders"]

logger: logging.Logger = logging.getLogger(__name__)

_MOST_TOLD = 1000


class Senders:
    """Decides whether messages are believed to be by the senders that they name.

    Without an identity, every sender is believed, and so is every sender when the identity's ``verify`` is ``"off"``.
    With ``"log"``, a sender that is not proven is told in the log once, and believed. With ``"require"``, a sender
    that is not proven is told in the log once, and not believed.

    Args:
        identity: The identity of the endpoint's connection.
        endpoint: The id of the endpoint, for the log.
    """

    def __init__(self, identity: MessageIdentity | None, endpoint: str) -> None:
        self._identity = identity if identity is not None and identity.verify != "off" else None
        self._endpoint = endpoint
        self._told: set[tuple[str, str]] = set()

    @property
    def required(self) -> bool:
        """Whether only proven senders are believed."""
        return self._identity is not None and self._identity.verify == "require"

    def refusal(self, message: InboundMessage, name: str) -> str | None:
        """Why a message is not believed to be by ``name``; None when it is.

        Args:
            message: The message.
            name: The sender that the message or its topic names.
        """
        if self._identity is None:
            return None
        proof = message.proof
        if proof.proves(name):
            return None
        fault = proof.fault or f"{proof.signer!r:.80} has signed it"
        why = f"nothing proves that {name!r:.80} is the sender: {fault}"
        kind = (name, message.topic)
        if kind not in self._told and len(self._told) < _MOST_TOLD:
            self._told.add(kind)
            what = "is refused" if self.required else "is accepted (verify='log')"
            logger.warning("%s: a message on %s %s: %s", self._endpoint, message.topic, what, why)
        return why if self.required else None
