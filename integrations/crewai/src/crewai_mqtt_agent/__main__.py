"""``python -m crewai_mqtt_agent serve module:crew --agent-id report-crew``: serve without writing a program."""

from __future__ import annotations

import argparse
import importlib
import os
import sys
from typing import Any

__all__ = ["main"]


def main(arguments: list[str] | None = None) -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(prog="python -m crewai_mqtt_agent", description="CrewAI over MQTT 5.")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    serve = commands.add_parser("serve", help="serve a crew, a flow or an agent until Ctrl-C")
    serve.add_argument("target", metavar="MODULE:NAME", help="a crew, a flow, an agent, or a function that makes one")
    serve.add_argument("--agent-id", required=True, help="the name under which others give it tasks")
    serve.add_argument("--broker", help="a URL; $MQTT_AGENT_BROKER or mqtt://localhost:1883 by default")
    serve.add_argument("--namespace", default="a2a/v1", help="the prefix of all topics (%(default)s)")
    serve.add_argument("--description", default="", help="for who chooses an agent")
    serve.add_argument("--capability", action="append", default=[], help="a word to search for; may be repeated")
    serve.add_argument("--store", help="the SQLite file of its tasks; in the user's state directory by default")
    serve.add_argument("--max-tasks", type=int, default=8, help="how many tasks run at once (%(default)s)")
    parsed = parser.parse_args(arguments)
    target = _load(parsed.target, parser)
    from crewai_mqtt_agent.hosting import host_any

    try:
        agent = host_any(
            target,
            agent_id=parsed.agent_id,
            broker=parsed.broker,
            namespace=parsed.namespace,
            description=parsed.description,
            capabilities=parsed.capability,
            store=parsed.store,
            max_concurrent_tasks=parsed.max_tasks,
        )
    except (TypeError, ValueError) as error:
        parser.error(f"{parsed.target} cannot be served: {error}")
    agent.run()


def _load(target: str, parser: argparse.ArgumentParser) -> Any:
    module, _, name = target.partition(":")
    if not module or not name:
        parser.error(f"{target!r} is not of the form MODULE:NAME")
    sys.path.insert(0, os.getcwd())
    try:
        found: Any = importlib.import_module(module)
        for part in name.split("."):
            found = getattr(found, part)
    except (ImportError, AttributeError) as error:
        parser.error(f"{target}: {error}")
    return found


if __name__ == "__main__":
    main()
