"""A chain (any Runnable that is no graph), served as an agent."""

from __future__ import annotations

from typing import Any, cast

from langchain_core.language_models import BaseChatModel
from langchain_core.messages import BaseMessage, HumanMessage
from langchain_core.runnables import Runnable
from mqtt_agent import Agent, TaskContext
from mqtt_agent.adapting.options import AgentOptions
from mqtt_agent.adapting.parts import blocks_of, files_of, prompt_of
from typing_extensions import Unpack

from langchain_mqtt_agent.parts import content_from
from langchain_mqtt_agent.serving.exchange import check_no_files, result_of

__all__ = ["chain_agent"]


def chain_agent(chain: Runnable[Any, Any], agent_id: str, **options: Unpack[AgentOptions]) -> Agent:
    """Make an agent that does each task with a chain. The caller starts the agent.

    The chain's input is the task's ``data``, else the task's prompt. When the chain takes a dict with one key, the
    prompt is the value of this key. A chain that begins with a chat model gets files too; any other chain is told their
    names with the prompt. Text that the chain streams is sent as events. A chain has no memory: each task
    runs by itself, and runs again when its agent was killed.

    Args:
        chain: The chain.
        agent_id: The agent's name.
        options: See :class:`mqtt_agent.Agent`: ``broker``, ``namespace``, ``store``, ``description``, ...

    Raises:
        InvalidIdentifier: ``agent_id`` or ``namespace`` cannot be used in topics.
    """
    agent = Agent(agent_id, **options)

    @agent.on_task
    async def run(task: TaskContext) -> Any:  # pyright: ignore[reportUnusedFunction]
        whole: Any = None
        async for piece in chain.astream(_input(chain, task)):
            text = piece if isinstance(piece, str) else piece.text if isinstance(piece, BaseMessage) else ""
            if text:
                await task.stream(str(text))
            whole = piece if whole is None else _joined(whole, piece)
        return result_of({"messages": [whole]} if isinstance(whole, BaseMessage) else whole)

    return agent


def _joined(whole: Any, piece: Any) -> Any:
    try:
        return whole + piece
    except TypeError:
        return piece  # the pieces are no parts: each is the whole value so far


def _input(chain: Runnable[Any, Any], task: TaskContext) -> Any:
    prompt = prompt_of(task)
    if task.data is not None or prompt is None:
        check_no_files(task)
        return task.data
    if files_of(blocks_of(task.parts)) and _takes_messages(chain):
        return [HumanMessage(content=cast("Any", content_from(blocks_of(task.parts))))]
    schema = chain.get_input_jsonschema()
    keys = list(schema.get("properties") or {}) if schema.get("type") == "object" else []
    if len(keys) > 1:
        raise ValueError(f"a prompt cannot be the input of this chain: send data with the keys {', '.join(keys)}")
    return {keys[0]: prompt} if keys else prompt


def _takes_messages(chain: Any) -> bool:
    """Whether a chain begins with a chat model."""
    while (first := getattr(chain, "first", None) or getattr(chain, "bound", None)) is not None:
        chain = first
    return isinstance(chain, BaseChatModel)
