"""What ``mqtt-agent serve`` serves with this adapter: graphs, chains and tools, and functions that make them."""

from __future__ import annotations

import inspect
from typing import Any

from mqtt_agent import Agent, ToolServer
from mqtt_agent.adapting.factories import descends, kinds_of

__all__ = ["servable"]


def servable(found: Any, *, name: str, description: str = "", **place: Any) -> Agent | ToolServer | None:
    """Make the endpoint that serves an object of LangChain or LangGraph.

    Args:
        found: A graph or its builder, a chain (any other Runnable), a tool, a list of tools, or a function whose return
            annotation names one of these.
        name: The agent id, or the name of the tool server.
        description: What the agent does, for its card.
        place: ``broker``, ``namespace``, ``credentials``, ``tls`` and ``bound``, and what was given of
            ``client_id``, ``replica``, ``capabilities``, ``store``, ``max_attempts``, ``max_concurrency`` and ``pool``.

    Returns:
        An endpoint that is not started. None for an object of somebody else.

    Raises:
        TypeError: The object cannot be served; the message says why.
    """
    kinds = kinds_of(found)
    ours = [each for each in kinds if descends(each, "langchain_core", "Runnable") or _is_graph(each)]
    if not ours or isinstance(found, type):
        return None
    if inspect.iscoroutinefunction(found):
        raise TypeError("an async function cannot make what is served here: give a plain function")
    made = found() if inspect.isroutine(found) else found
    about = {"description": description} if description else {}
    if isinstance(made, (list, tuple)) or descends(type(made), "langchain_core", "BaseTool"):
        from langchain_mqtt_agent.serving import tool_server

        for option in sorted({"store", "capabilities", "max_attempts", "pool"} & set(place)):
            raise TypeError(f"tool_server() got an unexpected keyword argument {option!r}: it is for agents")
        return tool_server(list(made) if isinstance(made, (list, tuple)) else [made], name, **place)
    if _is_graph(type(made)):
        from langchain_mqtt_agent.serving import graph_agent

        return graph_agent(made, name, **about, **place)
    from langchain_mqtt_agent.serving.chains import chain_agent

    return chain_agent(made, name, **about, **place)


def _is_graph(kind: type) -> bool:
    return descends(kind, "langgraph", "Pregel", "StateGraph")
