"""Giving a turn to a peer and following the turn. These functions run on the event loop of the connection."""

from __future__ import annotations

from typing import Any, NoReturn

from mqtt_agent import Agent, TaskEvent, TaskHandle
from mqtt_agent.adapting.content import Block
from mqtt_agent.adapting.delegating import check_online, delegated, while_online
from mqtt_agent.adapting.following import follow, unanswerable
from mqtt_agent.adapting.parts import answer_of, message_of
from mqtt_agent.adapting.streaming import Emit
from mqtt_agent.errors import TaskNotFound, TaskRejected
from mqtt_agent.wire import TaskState

from autogen_mqtt_agent.conversation import Asked
from autogen_mqtt_agent.questions import Ask
from autogen_mqtt_agent.saved import MQTTAgentConfig
from autogen_mqtt_agent.turns import AUTOGEN, CONTROL, TURN, Control

__all__ = ["control_turn", "give_turn"]

_CONTROL_TIMEOUT = 5.0  # seconds


async def give_turn(
    agent: Agent, participant: MQTTAgentConfig, asked: Asked, ask: Ask | None, emit: Emit
) -> tuple[str, Any, list[Block] | None]:
    """Give a turn to the participant's peer, emit the task's events, and return the task's id, result and answer.

    The answer are the blocks of :func:`mqtt_agent.adapting.parts.answer_of`.

    When this function is canceled, the turn is canceled at the peer. But when the host of a hosted agent stops, the
    turn goes on: the hosted agent asks for the turn again after the host's next start.

    Args:
        agent: The agent that gives the turn.
        participant: The arguments of the participant: its peer, and how long to wait for the peer.
        asked: The turn.
        ask: Answers the peer's questions; None when nobody can answer.
        emit: Called with each event.

    Raises:
        PeerUnavailable: The peer is not online, or has been offline for longer than ``participant.grace``.
        TaskError: The turn has no result.
        TransportError: The broker cannot be reached, or it refuses the connection.
    """
    peer, wait = participant.peer or participant.name, participant.absent == "wait"

    async def begin() -> TaskHandle:
        if asked.turn is None:
            return await agent.resume(asked.task_id, peer=peer)
        if not wait:
            await check_online(agent, peer, "start its host, or let the participant wait for the peer: absent='wait'")
        task_id = asked.task_id if asked.within is None else await _id_at_place(agent, asked)
        prompt, shows = {"role": "user", "content": asked.prompt}, False
        if asked.shown and not await _uses_autogen(agent, peer):  # a host gets the pictures with the turn itself
            prompt, shows = message_of(asked.shown, role="user").as_json(), True
        try:
            return await agent.delegate(
                peer,
                asked.prompt,
                type=TURN,
                messages=[*asked.history, prompt] if asked.history or shows else None,
                data=asked.turn.model_dump(),
                task_id=task_id,
                context_id=asked.turn.conversation,
                wait_online=True,
            )
        except TaskRejected as error:
            if error.code != "conflict":
                raise
            return await agent.resume(task_id)  # the same turn was given before, in messages with other ids

    async def follow_turn(handle: TaskHandle) -> tuple[str, Any, list[Block] | None]:
        async def tell(event: TaskEvent) -> None:
            emit(event)

        async def refuse(question: str, schema: Any) -> NoReturn:
            advice = (
                "Nobody can answer this question, so the turn is canceled: pass on_question= to MQTTAgent, or put the "
                "answer into the team's messages"
            )
            raise unanswerable(handle, question, advice)

        following = follow(handle, tell, ask or refuse)
        result = await (following if wait else while_online(agent, handle, following, grace=participant.grace))
        return handle.task_id, result, answer_of(handle.response)

    async def give_up(handle: TaskHandle) -> None:
        if asked.within is None or not asked.within.interrupted:
            await handle.cancel("the requester gave up")

    return await delegated(begin, follow_turn, timeout=participant.timeout, give_up=give_up)


async def _uses_autogen(agent: Agent, peer: str) -> bool:
    """Whether the peer is known to be an :class:`AgentHost`."""
    card = await agent.peer(peer)
    return card is not None and bool((card.meta or {}).get(AUTOGEN))


async def _id_at_place(agent: Agent, asked: Asked) -> str:
    """The id of the first task at a place that has not ended without a result. A hosted agent may try again."""
    number = asked.tries
    while True:
        task_id = f"{asked.task_id}.{number}" if number else asked.task_id
        try:
            known = await agent.resume(task_id)
        except TaskNotFound:
            return task_id
        if not known.done or known.state is TaskState.COMPLETED:
            return task_id
        number += 1


async def control_turn(agent: Agent, peer: str, control: Control) -> None:
    """Pause or resume the turn that a peer is in, and wait a few seconds until the peer has done so.

    Raises:
        TaskError: The peer has not done so in time, or it refused.
        TransportError: The broker cannot be reached, or it refuses the connection.
    """
    await agent.request(peer, type=CONTROL, data=control.model_dump(), timeout=_CONTROL_TIMEOUT)
