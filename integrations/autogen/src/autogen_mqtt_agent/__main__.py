"""``python -m autogen_mqtt_agent serve module:factory --agent-id writer``."""

from __future__ import annotations

import argparse
from collections.abc import Sequence

from mqtt_agent.cli.options import add_agent_options, serve_target

from autogen_mqtt_agent.host import AgentHost

__all__ = ["main"]


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line.

    Args:
        arguments: The words after the program's name; None takes those of this process.

    Raises:
        SystemExit: The arguments are wrong, or the host cannot serve.
    """
    parser = argparse.ArgumentParser(prog="python -m autogen_mqtt_agent", description="AutoGen over MQTT 5")
    commands = parser.add_subparsers(required=True, metavar="command")
    serve = commands.add_parser("serve", help="host an agent or a team")
    serve.add_argument(
        "target", metavar="module:function", help="a function that makes the agent or the team of a conversation"
    )
    add_agent_options(serve)
    serve.add_argument("--max-conversations", type=int, default=100, help="how many stay in memory (%(default)s)")
    serve_target(AgentHost, **vars(parser.parse_args(arguments)))


if __name__ == "__main__":
    main()
