"""A2A's parts in a form that every adapter can turn into its framework's own content, and back.

A part is text, data, or a file by its bytes or its URL. A framework that cannot carry a file gets a text that names the
file, from :func:`in_words`, so that a person or a model learns of it.
"""

from __future__ import annotations

import mimetypes
from collections.abc import Sequence

from mqtt_agent.adapting.content import Block, Data, Link, Media, Text, in_words, kind_of
from mqtt_agent.agents import TaskContext
from mqtt_agent.wire import Artifact, Part, TaskEvent, TaskMessage, TaskResult

__all__ = [
    "answer_of",
    "are_plain",
    "blocks_of",
    "files_of",
    "message_of",
    "parts_of",
    "prompt_of",
    "read_artifact",
    "read_blocks",
]

_ANY_TYPE = "application/octet-stream"


def blocks_of(parts: Sequence[Part]) -> list[Block]:
    """The blocks of parts. A file whose bytes are not base64 becomes a text that says so."""
    return [_block_of(part) for part in parts]


def _block_of(part: Part) -> Block:
    if part.text is not None:
        return Text(part.text)
    name = part.filename
    guessed = part.media_type or _guessed(name or part.url or "")
    if part.raw is not None:
        try:
            part.decoded()
        except ValueError as error:
            return Text(f"[a file that cannot be read: {name or 'without a name'}: {error}]")
        mime_type = guessed or _ANY_TYPE
        return Media(kind_of(mime_type), part.raw, mime_type, name=name)
    if part.url is not None:
        return Link(kind_of(guessed), part.url, part.media_type, name)
    return Data(part.data)


def _guessed(name: str) -> str | None:
    try:
        return mimetypes.guess_type(name)[0]
    except ValueError:  # since Python 3.12, for what looks like an address and is none
        return None


def parts_of(blocks: Sequence[Block]) -> list[Part]:
    """The parts of blocks."""
    return [_part_of(block) for block in blocks]


def _part_of(block: Block) -> Part:
    if isinstance(block, Text):
        return Part(text=block.text)
    if isinstance(block, Media):
        return Part(raw=block.data, media_type=block.mime_type, filename=block.name)
    if isinstance(block, Link):
        return Part(url=block.uri, media_type=block.mime_type, filename=block.name)
    return Part(data=block.value)


def are_plain(blocks: Sequence[Block]) -> bool:
    """Whether blocks are text only."""
    return all(isinstance(block, Text) for block in blocks)


def files_of(blocks: Sequence[Block]) -> list[Media | Link]:
    """The blocks that are images, recordings or other files."""
    return [block for block in blocks if isinstance(block, (Media, Link))]


def message_of(blocks: Sequence[Block], *, role: str = "agent", name: str | None = None) -> TaskMessage:
    """A message with these blocks as its parts, for a task or as the answer of a handler.

    Args:
        blocks: The blocks.
        role: Who has written the message.
        name: The name of the author, when the role does not say enough.
    """
    about = {} if name is None else {"name": name}
    return TaskMessage.model_validate({"role": role, "parts": parts_of(blocks), **about})


def read_blocks(message: TaskMessage) -> list[Block]:
    """The blocks of a message, also of a message that has only ``content``."""
    return blocks_of(message.all_parts)


def read_artifact(event: TaskEvent) -> list[Block]:
    """The blocks of an artifact, or of a chunk of it, that an event brings."""
    return blocks_of(event.parts or Artifact(data=event.data).all_parts)


def prompt_of(task: TaskContext) -> str | None:
    """The prompt of a task for a framework that takes text only.

    Data of the message that is not the task's ``data`` follows as JSON, and each file is named.

    Args:
        task: The task.

    Returns:
        The prompt; None when the task has neither a prompt nor parts.
    """
    said = [block for block in blocks_of(task.parts) if not (isinstance(block, Data) and block.value == task.data)]
    if are_plain(said):
        return task.prompt
    if any(isinstance(block, Text) for block in said) or any(task.prompt == each.content for each in task.messages):
        return in_words(said)
    return in_words([*([] if task.prompt is None else [Text(task.prompt)]), *said])


def answer_of(result: TaskResult | None) -> list[Block] | None:
    """The blocks of a peer's answer.

    An agent answers with a value, with a message, or, as many A2A agents do, with an artifact alone.

    Args:
        result: The result message.

    Returns:
        The blocks; None when the value of the result is the whole answer.
    """
    if result is None:
        return None
    if result.message is not None:
        return blocks_of(result.message.parts) if result.message.parts else None
    if result.result is not None:
        return None
    artifacts = [Artifact.read(each) for each in result.artifacts or ()]
    return next((blocks_of(each.parts) for each in reversed(artifacts) if each.parts), None)
