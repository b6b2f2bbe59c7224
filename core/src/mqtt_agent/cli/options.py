"""What the command lines of the adapters have in common: their options, and how they find what they serve."""

from __future__ import annotations

import argparse
import importlib
import os
import sys
from typing import Any

__all__ = ["add_agent_options", "add_broker_options", "load"]


def add_broker_options(parser: argparse.ArgumentParser) -> None:
    """Add ``--broker`` and ``--namespace``."""
    parser.add_argument("--broker", help="a URL (default: $MQTT_AGENT_BROKER, then mqtt://localhost:1883)")
    parser.add_argument("--namespace", default="a2a/v1", help="the prefix of all topics (default: %(default)s)")


def add_agent_options(parser: argparse.ArgumentParser) -> None:
    """Add what an agent is made with; the names in the result are those of :class:`mqtt_agent.Agent`."""
    add_broker_options(parser)
    parser.add_argument("--agent-id", required=True, help="the name under which others give it tasks")
    parser.add_argument("--description", default="", help="for the person or the model that chooses an agent")
    parser.add_argument(
        "--capability",
        dest="capabilities",
        metavar="WORD",
        action="append",
        default=[],
        help="a word to search for; may be repeated",
    )
    parser.add_argument("--store", help="the SQLite file of its tasks (default: in the user's state directory)")


def load(target: str) -> Any:
    """What ``module:name`` stands for; modules in the working directory are found.

    Args:
        target: The module's name and, after a colon, that of something in it; dots lead further in.

    Raises:
        ValueError: It has another form, or the module has no such thing.
        ImportError: There is no such module, or it cannot be imported.
    """
    module, _, name = target.partition(":")
    if not module or not name:
        raise ValueError("write it as module:name")
    sys.path.insert(0, os.getcwd())
    found: Any = importlib.import_module(module)
    for part in name.split("."):
        if not hasattr(found, part):
            raise ValueError(f"module {module} has no {name}")
        found = getattr(found, part)
    return found
