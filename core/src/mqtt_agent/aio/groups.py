"""Looks into exception groups, which :class:`asyncio.TaskGroup` raises."""

from __future__ import annotations

import builtins
import sys
from collections.abc import Iterator
from typing import Any

__all__ = ["leaves_of", "members_of"]


def members_of(error: BaseException) -> tuple[BaseException, ...]:
    """The exceptions of an exception group; no exceptions when the error is no group."""
    # Python 3.10 has no exception groups. There, the package exceptiongroup has them.
    of_package = getattr(sys.modules.get("exceptiongroup"), "BaseExceptionGroup", ())
    group: Any = getattr(builtins, "BaseExceptionGroup", of_package)
    members: tuple[BaseException, ...] = getattr(error, "exceptions", ()) if isinstance(error, group) else ()
    return members


def leaves_of(error: BaseException) -> Iterator[BaseException]:
    """The exceptions of an exception group, of its groups and so on; or the exception itself."""
    members = members_of(error)
    if not members:
        yield error
    for member in members:
        yield from leaves_of(member)
