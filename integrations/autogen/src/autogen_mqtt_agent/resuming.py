"""Lets a loaded team go on from the turns that were under way when its state was saved."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncGenerator, Sequence

from autogen_agentchat.base import Response, TaskResult
from autogen_agentchat.messages import BaseAgentEvent, BaseChatMessage
from autogen_agentchat.teams import BaseGroupChat, GraphFlow
from autogen_core import CancellationToken
from mqtt_agent.adapting.callers import last

from autogen_mqtt_agent.agent import MQTTAgent

__all__ = ["resume_team", "resume_team_stream"]


async def resume_team(team: BaseGroupChat, cancellation_token: CancellationToken | None = None) -> TaskResult:
    """Run a loaded team from the remote turns that were under way when its state was saved.

    AutoGen does not ask for such a turn again after the load. So this function waits for the answers, and the team goes
    on with them. In a ``GraphFlow``, several turns may be under way: the nodes after them run when all of them have
    answered. Without such a turn, the team goes on as with ``team.run()``.

    Example:
        >>> await team.load_state(saved)  # doctest: +SKIP
        >>> result = await resume_team(team)  # doctest: +SKIP

    Args:
        team: The team. The turns of its own participants are resumed, and not those of teams within the team.
        cancellation_token: Cancels the turns and the run.

    Raises:
        ValueError: A turn was given under another ``agent_id``.
        TaskError, TransportError: See :meth:`MQTTAgent.on_messages_stream`.
        RuntimeError: An agent of the team failed.
    """
    result = await last(resume_team_stream(team, cancellation_token))
    assert isinstance(result, TaskResult)
    return result


async def resume_team_stream(
    team: BaseGroupChat, cancellation_token: CancellationToken | None = None
) -> AsyncGenerator[BaseAgentEvent | BaseChatMessage | TaskResult, None]:
    """Yield the messages of :func:`resume_team` as they arrive, and then the result. For the errors see there."""
    participants = [each for each in team._participants if isinstance(each, MQTTAgent)]
    waiting = [each for each in participants if each.pending_turn() is not None]
    answers: list[BaseChatMessage] = []
    if isinstance(team, GraphFlow):
        await _make_ready(team, [each.name for each in waiting])
    else:
        for participant in waiting:
            async with contextlib.aclosing(participant.resume_stream(cancellation_token)) as events:
                async for event in events:
                    if isinstance(event, Response):
                        answers.append(event.chat_message)
                    else:
                        yield event
    async for message in team.run_stream(task=answers or None, cancellation_token=cancellation_token):
        yield message


async def _make_ready(team: GraphFlow, names: Sequence[str]) -> None:
    """Let a graph ask these participants next. A participant that is asked for its turn again waits for the answer.

    A graph takes nodes from its list of ready nodes when it asks them, and notes nowhere that it waits for them. An
    answer that is given as a task counts only when it is the last message.
    """
    state = dict(await team.save_state())
    manager = state["agent_states"][team._group_chat_manager_name]
    manager["ready"] = [*manager["ready"], *(name for name in names if name not in manager["ready"])]
    await team.load_state(state)
