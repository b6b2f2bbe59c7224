"""How many contents a tool server keeps for its callers, how long, and where."""

from __future__ import annotations

import os
from dataclasses import dataclass

__all__ = ["ContentSettings"]


@dataclass(frozen=True)
class ContentSettings:
    """How many contents a tool server keeps, how long, and where; see :meth:`ToolContext.share`.

    Attributes:
        directory: Where contents are kept over a restart of the process, together with a list of them. Only one process
            may use the directory. None keeps them in temporary files that end with the process.
        max_count: How many contents are kept at once, 1 or more. Each of them is an open file.
        max_bytes: Bytes of all contents together, 1 or more, without the files that the handlers own.
        max_age: Seconds that a content is kept after it was shared or was last read, above 0.

    Raises:
        ValueError: A number is too small.
    """

    directory: str | os.PathLike[str] | None = None
    max_count: int = 256
    max_bytes: int = 1024 * 1024 * 1024
    max_age: float = 600.0

    def __post_init__(self) -> None:
        if self.max_count < 1 or self.max_bytes < 1 or not self.max_age > 0:
            raise ValueError("max_count and max_bytes must be 1 or more, and max_age more than 0 s")
