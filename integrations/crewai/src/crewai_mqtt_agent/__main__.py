"""``python -m crewai_mqtt_agent serve module:crew --agent-id report-crew``: serve without writing a program."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from typing import Any

from mqtt_agent.cli.options import add_agent_options, serve_target
from mqtt_agent.deprecation import warn_renamed

__all__ = ["main"]


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line.

    Args:
        arguments: The words after the program's name; None takes those of this process.

    Raises:
        SystemExit: The arguments are wrong, or the target cannot be served.
    """
    parser = argparse.ArgumentParser(prog="python -m crewai_mqtt_agent", description="CrewAI over MQTT 5")
    commands = parser.add_subparsers(required=True, metavar="command")
    serve = commands.add_parser("serve", help="serve a crew, a flow or an agent until Ctrl-C")
    serve.add_argument("target", metavar="module:name", help="a crew, a flow, an agent, or a function that makes one")
    add_agent_options(serve)
    serve.add_argument("--max-concurrency", type=int, default=8, help="how many tasks run at once (%(default)s)")
    serve.add_argument("--max-tasks", type=int, help=argparse.SUPPRESS)  # the old name
    options = vars(parser.parse_args(arguments))
    old = options.pop("max_tasks")
    if old is not None:
        warn_renamed("--max-tasks", "--max-concurrency")
        options["max_concurrency"] = old
    serve_target(_host, **options)


def _host(found: Any, **options: Any) -> Any:
    from crewai_mqtt_agent.hosting import host_crew  # it imports CrewAI, which takes many seconds

    return host_crew(found, **options)


if __name__ == "__main__":
    main()
