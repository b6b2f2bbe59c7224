"""``python -m autogen_mqtt_agent serve module:factory --agent-id writer``."""

from __future__ import annotations

import argparse
import importlib
import os
import sys
from collections.abc import Sequence
from typing import Any

from autogen_mqtt_agent.host import AgentHost

__all__ = ["main"]


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(prog="python -m autogen_mqtt_agent", description="AutoGen over MQTT 5")
    commands = parser.add_subparsers(required=True, metavar="command")
    serve = commands.add_parser("serve", help="host an agent or a team")
    serve.add_argument("factory", help="module:function, which gives the agent or the team of a conversation")
    serve.add_argument("--agent-id", required=True, help="its name")
    serve.add_argument("--broker", help="a URL; by default $MQTT_AGENT_BROKER, then mqtt://localhost:1883")
    serve.add_argument("--namespace", default="a2a/v1", help="the prefix of all topics")
    serve.add_argument("--description", default="", help="for whoever chooses an agent")
    serve.add_argument("--store", help="an SQLite file; by default one in the user's state directory")
    serve.add_argument("--max-conversations", type=int, default=100, help="how many are kept in memory")
    options = vars(parser.parse_args(arguments))
    sys.path.insert(0, os.getcwd())
    name = options.pop("factory")
    factory = _load(name)
    try:
        host = AgentHost(factory, **options)
    except (TypeError, ValueError) as error:
        sys.exit(f"{name} cannot be served: {error}")
    host.run()


def _load(name: str) -> Any:
    module, _, attribute = name.partition(":")
    try:
        return getattr(importlib.import_module(module), attribute)
    except (ImportError, AttributeError, ValueError) as error:
        sys.exit(f"{name}: give a function as module:function: {error}")


if __name__ == "__main__":
    main()
