"""A2A's parts become AutoGen's messages, and AutoGen's messages become parts."""

from __future__ import annotations

from collections.abc import Sequence

from autogen_agentchat.messages import BaseChatMessage, MultiModalMessage, TextMessage
from autogen_core import Image
from mqtt_agent.adapting.content import Block, Link, Media, Text, in_words
from mqtt_agent.adapting.parts import are_plain

__all__ = ["blocks_in", "has_pictures", "message_from", "picture_or_words"]


def picture_or_words(block: Block) -> str | Image:
    """A block for AutoGen, which carries texts and pictures only. Any other file becomes a text that names the file."""
    if isinstance(block, Link) or not isinstance(block, Media) or block.kind != "image":
        return in_words([block])
    try:
        return Image.from_base64(block.data)
    except (OSError, ValueError) as error:  # Pillow cannot read the picture, or the data is not base64
        return f"[an image that cannot be read: {error}]"


def message_from(blocks: Sequence[Block], source: str) -> BaseChatMessage:
    """A message with these blocks: text alone, or text and pictures.

    Args:
        blocks: The blocks.
        source: Who has written the message.
    """
    content = [picture_or_words(block) for block in blocks]
    if any(isinstance(each, Image) for each in content):
        return MultiModalMessage(content=content, source=source)
    return TextMessage(content="\n".join(each for each in content if isinstance(each, str)), source=source)


def has_pictures(messages: Sequence[BaseChatMessage]) -> bool:
    """Whether a message among these has more than text."""
    return any(isinstance(message, MultiModalMessage) and not are_plain(blocks_in(message)) for message in messages)


def blocks_in(message: BaseChatMessage) -> list[Block]:
    """The blocks of a message. AutoGen keeps pictures as PNG."""
    if not isinstance(message, MultiModalMessage):
        return [Text(message.to_model_text())]
    return [
        Media("image", each.to_base64(), "image/png") if isinstance(each, Image) else Text(each)
        for each in message.content
    ]
