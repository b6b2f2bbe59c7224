"""The command line: ``python -m langchain_mqtt_agent serve module:graph --agent-id planner``."""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import inspect
import logging
import sys
from collections.abc import Sequence
from typing import Any, cast

from mqtt_agent.cli.options import add_agent_options, add_broker_options, load
from mqtt_agent.errors import MQTTAgentError

from langchain_mqtt_agent.serving import graph_agent, tool_server

_ABOUT = ("description", "capabilities", "store", "max_attempts")


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line: serve a graph or tools until SIGINT or SIGTERM."""
    options = _parser().parse_args(arguments)
    logging.basicConfig(level=logging.INFO if options.verbose else logging.WARNING)
    try:
        asyncio.run(_serve(options))
    except (MQTTAgentError, ImportError, TypeError, ValueError) as error:
        sys.exit(f"{options.target}: {error}")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser("python -m langchain_mqtt_agent", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    common = argparse.ArgumentParser(add_help=False)
    common.add_argument(
        "target",
        metavar="module:name",
        help="the graph or the list of tools, or a function, plain or async, that returns it",
    )
    common.add_argument("--verbose", action="store_true", help="log what happens")
    graph = commands.add_parser("serve", parents=[common], help="serve a LangGraph app as an agent")
    add_agent_options(graph)
    graph.add_argument(
        "--checkpoints", metavar="FILE", help="keep the graph's checkpoints in this SQLite file, to go on after a crash"
    )
    tools = commands.add_parser(
        "serve-tools", parents=[common], help="serve a list of LangChain tools as a tool server"
    )
    add_broker_options(tools)
    tools.add_argument("--server", required=True, help="the server's name, the same for all its replicas")
    tools.add_argument("--replica", help="the name of this replica (default: a new name)")
    return parser


async def _serve(options: argparse.Namespace) -> None:
    where: dict[str, Any] = {"broker": options.broker, "namespace": options.namespace}
    async with contextlib.AsyncExitStack() as stack:
        target = await _made(load(options.target))
        if options.command == "serve-tools":
            if not isinstance(target, (list, tuple)):
                raise TypeError(f"a list of tools is needed, not {type(target).__name__}")
            await tool_server(
                list(cast("list[Any]", target)), options.server, replica=options.replica, **where
            ).serve_until_signal()
            return
        checkpointer = await stack.enter_async_context(_sqlite(options.checkpoints)) if options.checkpoints else None
        about: dict[str, Any] = {name: getattr(options, name) for name in _ABOUT}
        await graph_agent(target, options.agent_id, checkpointer=checkpointer, **about, **where).serve_until_signal()


async def _made(found: Any) -> Any:
    if inspect.isroutine(found):
        found = found()
    return await found if inspect.isawaitable(found) else found


def _sqlite(path: str) -> Any:
    try:
        from langgraph.checkpoint.sqlite.aio import AsyncSqliteSaver
    except ImportError as error:
        raise ImportError(
            "--checkpoints needs an SQLite checkpointer: pip install 'langchain-mqtt-agent[checkpoints]'"
        ) from error
    return AsyncSqliteSaver.from_conn_string(path)


if __name__ == "__main__":
    main()
