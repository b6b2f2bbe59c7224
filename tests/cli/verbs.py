"""The verbs of the command line, from its parser."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import typer
from mqtt_agent.cli.app import make_app

__all__ = ["VERBS"]


def _leaves(group: Any, above: str = "") -> Iterator[tuple[str, Any]]:
    for name, command in group.commands.items():
        if hasattr(command, "commands"):
            yield from _leaves(command, f"{above}{name} ")
        else:
            yield above + name, command


VERBS: dict[str, Any] = dict(_leaves(typer.main.get_command(make_app())))
"""Each verb with its command; a part of a verb has a name such as ``acl check``."""
