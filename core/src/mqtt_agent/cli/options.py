"""The command-line options that the adapters share, and how their commands find the object to serve."""

from __future__ import annotations

import argparse
import importlib
import os
import sys
from collections.abc import Callable
from typing import Any

from mqtt_agent.display.suggestions import did_you_mean

__all__ = ["add_agent_options", "add_broker_options", "load", "serve_target"]


def add_broker_options(parser: argparse.ArgumentParser) -> None:
    """Add the options ``--broker`` and ``--namespace``.

    Args:
        parser: The parser that gets the options.
    """
    parser.add_argument(
        "--broker",
        help="the broker's URL, or several with commas between them (default: $MQTT_AGENT_BROKER, then "
        "mqtt://localhost:1883)",
    )
    parser.add_argument("--namespace", default="a2a/v1", help="the prefix of all topics (default: %(default)s)")


def add_agent_options(parser: argparse.ArgumentParser) -> None:
    """Add the options of an agent, and the options of :func:`add_broker_options`.

    The parsed options have the names of the arguments of :class:`mqtt_agent.Agent`.

    Args:
        parser: The parser that gets the options.
    """
    add_broker_options(parser)
    parser.add_argument("--agent-id", required=True, help="the agent's name; peers give tasks to this name")
    parser.add_argument(
        "--description", default="", help="what the agent does, for the person or the model that chooses an agent"
    )
    parser.add_argument(
        "--capability",
        dest="capabilities",
        metavar="WORD",
        action="append",
        default=[],
        help="a word by which peers find the agent; may be repeated",
    )
    parser.add_argument(
        "--store",
        help="where the agent's tasks are kept: an SQLite file, or postgresql://USER@HOST/DATABASE (default: a file in "
        "the user's state directory)",
    )
    parser.add_argument(
        "--max-attempts",
        type=int,
        metavar="NUMBER",
        help="how often the work on a task may begin, when the process is killed during it (default: no limit)",
    )


def load(target: str) -> Any:
    """Import an object by its name. Modules in the working directory are found, too.

    Args:
        target: The module's name, a colon, and the object's name in the module: ``my_graphs:research``. The object's
            name may have dots: ``my_crews:Crews.report``.

    Returns:
        The object.

    Raises:
        ValueError: ``target`` has another form, or the module has no such object.
        ImportError: The module does not exist, or its import fails.
    """
    module, _, name = target.partition(":")
    if not module or not name:
        raise ValueError(f"{target!r} names no object: write it as module:name")
    sys.path.insert(0, os.getcwd())
    found: Any = importlib.import_module(module)
    for part in name.split("."):
        if not hasattr(found, part):
            names = [each for each in dir(found) if not each.startswith("_")]
            raise ValueError(f"module {module} has no {name}{did_you_mean(part, names)}")
        found = getattr(found, part)
    return found


def serve_target(make: Callable[..., Any], target: str, **options: Any) -> None:
    """Import an object, and serve it until SIGINT or SIGTERM.

    Args:
        make: Gets the object and the options, and returns an agent or a host.
        target: See :func:`load`.
        options: The options of the command line.

    Raises:
        SystemExit: The object cannot be imported or served.
    """
    try:
        host = make(load(target), **options)
    except (ImportError, TypeError, ValueError) as error:
        sys.exit(f"{target} cannot be served: {error}")
    host.run()
