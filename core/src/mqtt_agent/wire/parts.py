"""A2A's parts: the content of messages and artifacts, as text, data, or a file by its bytes or its URL."""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from typing import Any, cast

from pydantic import Field, ValidationError, model_validator
from pydantic.functional_validators import ModelWrapValidatorHandler
from typing_extensions import Self

from mqtt_agent.wire.messages import Message

__all__ = ["Part", "content_of_parts", "parts_of_content", "plain_content"]


class Part(Message, extra="allow"):
    """A piece of a message or of an artifact, as in A2A 1.0. One of ``text``, ``data``, ``raw`` and ``url`` is set.

    A value that is no part, from another implementation, is read as a part with this value as ``data``.

    Example:
        >>> Part(text="Which of these is best?").kind
        'text'
        >>> Part.of_bytes(b"%PDF", media_type="application/pdf", filename="trip.pdf").raw
        'JVBERg=='

    Attributes:
        text: Text for a person or a model.
        data: Any JSON value. A part whose only content is null has ``data`` None.
        raw: The bytes of a file, in base64; see :meth:`of_bytes` and :meth:`decoded`.
        url: The address of a file.
        filename: The name of the file, such as ``trip.pdf``.
        media_type: ``mediaType`` in JSON: the MIME type of the content.
        metadata: Any other information.
    """

    text: str | None = None
    data: Any = None
    raw: str | None = None
    url: str | None = None
    filename: str | None = None
    media_type: str | None = Field(default=None, validation_alias="mediaType", serialization_alias="mediaType")
    metadata: dict[str, Any] | None = None

    @model_validator(mode="wrap")
    @classmethod
    def _read_anything(cls, value: Any, handler: ModelWrapValidatorHandler[Self]) -> Self:
        if isinstance(value, str):
            return handler({"text": value})
        if isinstance(value, (Mapping, Part)):
            try:
                return handler(value)
            except ValidationError:
                pass
        return handler({"data": value})

    @classmethod
    def of_bytes(cls, content: bytes, *, media_type: str | None = None, filename: str | None = None) -> Self:
        """Make a part of the bytes of a file.

        Args:
            content: The bytes.
            media_type: The MIME type, such as ``image/png``.
            filename: The name of the file.
        """
        return cls(raw=base64.b64encode(content).decode(), media_type=media_type, filename=filename)

    @property
    def kind(self) -> str:
        """What the part has: ``text``, ``raw``, ``url`` or ``data``."""
        for name in ("text", "raw", "url"):
            if getattr(self, name) is not None:
                return name
        return "data"

    def continues(self, other: Part) -> bool:
        """Whether another part differs from this part only in its text."""
        return self.model_copy(update={"text": None}) == other.model_copy(update={"text": None})

    def decoded(self) -> bytes:
        """The bytes of a file.

        Raises:
            ValueError: The part has no bytes, or they are not base64.
        """
        if self.raw is None:
            raise ValueError(f"this part has no bytes: it has {self.kind}")
        try:
            return base64.b64decode(self.raw, validate=True)
        except ValueError as error:
            raise ValueError(f"the bytes of this part are not base64: {error}") from error


def content_of_parts(parts: Sequence[Part]) -> Any:
    """The content of parts for a reader that knows no parts: the text, the data of a single data part, or None."""
    if len(parts) == 1 and parts[0].kind == "data":
        return parts[0].data
    texts = [part.text for part in parts if part.text is not None]
    return "\n".join(texts) if texts else None


def parts_of_content(content: Any) -> list[Part]:
    """The parts that a content without parts stands for: a string is text, any other value but null is data."""
    if content is None:
        return []
    return [Part(text=content) if isinstance(content, str) else Part(data=content)]


def plain_content(parts: Sequence[Part]) -> bool:
    """Whether :func:`content_of_parts` says all that the parts say, so that the parts need not be sent."""
    if len(parts) != 1 or (parts[0].model_extra or {}):
        return False
    part = parts[0]
    about = (part.filename, part.media_type, part.metadata)
    if about != (None, None, None):
        return False
    return part.kind == "text" or (part.kind == "data" and not isinstance(cast("object", part.data), (str, type(None))))
