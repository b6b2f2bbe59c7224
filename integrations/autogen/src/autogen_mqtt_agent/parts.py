"""A2A's parts become AutoGen's messages, and AutoGen's messages become parts."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from io import BytesIO

from autogen_agentchat.messages import BaseChatMessage, MultiModalMessage, TextMessage
from autogen_core import Image
from mqtt_agent.adapting.content import Block, Link, Media, Text, in_words
from mqtt_agent.adapting.parts import are_plain
from PIL import Image as Pillow

__all__ = ["blocks_in", "has_pictures", "message_from", "picture_or_words"]

_MOST_PIXELS = 50_000_000
"""The largest picture. Each pixel takes three bytes of memory, and a small file may have very many pixels."""


def picture_or_words(block: Block) -> str | Image:
    """A block for AutoGen, which carries texts and pictures only. Any other file becomes a text that names the file."""
    if isinstance(block, Link) or not isinstance(block, Media) or block.kind != "image":
        return in_words([block])
    try:
        picture = Pillow.open(BytesIO(base64.b64decode(block.data)))
        if picture.width * picture.height > _MOST_PIXELS:
            return f"[an image that is too large: {picture.width} x {picture.height} pixels]"
        return Image.from_pil(picture)
    except Exception as error:  # a peer may send anything, and Pillow raises errors of many kinds
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
