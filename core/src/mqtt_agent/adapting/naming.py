"""The names by which language models call tools."""

from __future__ import annotations

import re
from collections.abc import Sequence

from mqtt_agent.wire import ToolCard

__all__ = ["legal_name", "name_tools"]

_MAX_NAME = 64


def legal_name(name: str, taken: set[str]) -> str:
    """Make a name that language models accept: ``[a-zA-Z0-9_-]{1,64}``.

    The name is not in ``taken`` before. It is added to ``taken``.
    """
    legal = re.sub(r"[^a-zA-Z0-9_-]", "_", name)[:_MAX_NAME] or "_"
    unique, number = legal, 1
    while unique in taken:
        number += 1
        suffix = f"_{number}"
        unique = legal[: _MAX_NAME - len(suffix)].rstrip("_") + suffix
    taken.add(unique)
    return unique


def name_tools(cards: Sequence[ToolCard], taken: set[str], *, prefix: bool = False) -> list[tuple[str, ToolCard]]:
    """Give each tool a name of its own that language models accept.

    Args:
        cards: The cards of the tools.
        taken: Names that no tool may have. The names of the tools are added.
        prefix: Whether each name begins with the name of the tool's server. Otherwise a tool gets this prefix only if
            a tool of another server has the same name already.

    Returns:
        Each card with its name, in the same order.
    """
    named: list[tuple[str, ToolCard]] = []
    owners: dict[str, str] = {}
    for card in cards:
        foreign = owners.setdefault(legal_name(card.tool, set()), card.server) != card.server
        wished = f"{card.server}_{card.tool}" if prefix or foreign else card.tool
        named.append((legal_name(wished, taken), card))
    return named
