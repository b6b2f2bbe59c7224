"""Answers the requests of A2A clients, whatever their transport is."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from typing import Any

from a2a.server.context import ServerCallContext
from a2a.server.request_handlers.request_handler import RequestHandler
from a2a.types import a2a_pb2 as a2a
from a2a.utils.constants import DEFAULT_LIST_TASKS_PAGE_SIZE
from a2a.utils.errors import (
    ContentTypeNotSupportedError,
    InvalidParamsError,
    TaskNotFoundError,
    UnsupportedOperationError,
)
from a2a.utils.task import (
    ListTasksCursor,
    apply_history_length,
    decode_list_tasks_cursor,
    encode_list_tasks_cursor,
    validate_history_length,
    validate_page_size,
)

from a2a_mqtt_agent.callers import Caller
from a2a_mqtt_agent.following import Followed
from a2a_mqtt_agent.hiding import answers
from a2a_mqtt_agent.pushing import Pusher
from a2a_mqtt_agent.views import Update, direct_message

__all__ = ["AGENT", "REQUEST", "Cards", "Handler", "Names"]

AGENT: str = "mqtt-agent"
"""The key in the state of a call context that names the agent."""

REQUEST: str = "mqtt-agent/request"
"""The key in the state of a call context that has the HTTP request."""

Cards = Callable[[str, bool], Awaitable[a2a.AgentCard | None]]
Names = Callable[[], Awaitable[Sequence[str]]]


class Handler(RequestHandler):
    """Gives the requests of A2A clients to agents over MQTT.

    Args:
        callers: The callers by their agent ids.
        card_of: Makes the card of an agent; None when the agent is not served.
        names: The names of the agents that are served.
        pusher: Sends push notifications.
    """

    def __init__(self, callers: dict[str, Caller], card_of: Cards, names: Names, pusher: Pusher) -> None:
        self._callers = callers
        self._card_of = card_of
        self._names = names
        self._pusher = pusher

    async def _served(self, context: ServerCallContext) -> tuple[Caller, str]:
        """Who calls, and which agent is called.

        Raises:
            A2AError: There is no such caller, or no such agent.
        """
        peer = str(context.state.get(AGENT) or context.tenant)
        if not peer:  # over gRPC, a request need not name the only agent
            names = await self._names()
            peer = names[0] if len(names) == 1 else ""
        caller = self._callers.get(context.user.user_name)
        if caller is None or await self._card_of(peer, False) is None:
            raise UnsupportedOperationError(f"There is no agent {peer!r:.80}")
        return caller, peer

    # Tasks

    @answers
    async def on_get_task(self, params: a2a.GetTaskRequest, context: ServerCallContext) -> a2a.Task | None:
        """Show a task."""
        validate_history_length(params)
        caller, peer = await self._served(context)
        return apply_history_length(await caller.view(params.id, peer), params)

    @answers
    async def on_list_tasks(self, params: a2a.ListTasksRequest, context: ServerCallContext) -> a2a.ListTasksResponse:
        """List the tasks that the caller has given to the agent, the latest change first."""
        validate_history_length(params)
        size = params.page_size if params.HasField("page_size") else DEFAULT_LIST_TASKS_PAGE_SIZE
        validate_page_size(size)
        caller, peer = await self._served(context)
        tasks = sorted(
            (task for task in await caller.views(peer) if _wanted(task, params)),
            key=lambda task: _cursor(task).sort_key(),
            reverse=True,
        )
        first = 0
        if params.page_token:
            cursor = decode_list_tasks_cursor(params.page_token)
            if cursor is None:
                raise InvalidParamsError("The page token is not valid")
            first = sum(_cursor(task).sort_key() >= cursor.sort_key() for task in tasks)
        page = tasks[first : first + size]
        more = first + size < len(tasks)
        return a2a.ListTasksResponse(
            tasks=[_shown(task, params) for task in page],
            next_page_token=encode_list_tasks_cursor(_cursor(page[-1])) if more else "",
            page_size=size,
            total_size=len(tasks),
        )

    @answers
    async def on_cancel_task(self, params: a2a.CancelTaskRequest, context: ServerCallContext) -> a2a.Task | None:
        """Cancel a task."""
        caller, peer = await self._served(context)
        return await caller.cancel(params.id, peer)

    # Messages

    async def _send(self, params: a2a.SendMessageRequest, context: ServerCallContext) -> Followed:
        validate_history_length(params.configuration)
        caller, peer = await self._served(context)
        card = await self._card_of(peer, False)
        assert card is not None
        _check_modes(params.message, card)
        wants = params.configuration
        if wants.HasField("task_push_notification_config"):
            await self._pusher.check(wants.task_push_notification_config.url)
        followed = await caller.send(params, peer)
        if wants.HasField("task_push_notification_config"):
            await self._pusher.add(caller, followed, wants.task_push_notification_config, at_once=True)
        return followed

    @answers
    async def on_message_send(
        self, params: a2a.SendMessageRequest, context: ServerCallContext
    ) -> a2a.Task | a2a.Message:
        """Give a task or an answer to the agent, and return the task once it is over or asks."""
        followed = await self._send(params, context)
        task = followed.task if params.configuration.return_immediately else await followed.until_it_waits()
        if not await _is_gone(context):
            self._callers[context.user.user_name].note_answered(task.id)
        if params.configuration.return_immediately:
            return apply_history_length(task, params.configuration)
        return direct_message(task, followed.result) or apply_history_length(task, params.configuration)

    @answers
    async def on_message_send_stream(
        self, params: a2a.SendMessageRequest, context: ServerCallContext
    ) -> AsyncGenerator[a2a.Task | Update, None]:
        """Give a task or an answer to the agent, and show the task and each change of it."""
        followed = await self._send(params, context)
        async for event in _listen(followed, params.configuration):
            yield event
        self._callers[context.user.user_name].note_answered(followed.task.id)

    @answers
    async def on_subscribe_to_task(
        self, params: a2a.SubscribeToTaskRequest, context: ServerCallContext
    ) -> AsyncGenerator[a2a.Task | Update, None]:
        """Show the task as it is now, and each change from now on, without a gap."""
        caller, peer = await self._served(context)
        found = await caller.find(params.id, peer)
        if isinstance(found, a2a.Task) or found.over:
            raise UnsupportedOperationError(f"Task {params.id} is over: nothing will happen to it")
        async for event in _listen(found, None):
            yield event

    # Push notifications

    @answers
    async def on_create_task_push_notification_config(
        self, params: a2a.TaskPushNotificationConfig, context: ServerCallContext
    ) -> a2a.TaskPushNotificationConfig:
        """Add or replace the address that is told about the changes of a task."""
        caller, found = await self._task_of(params.task_id, context)
        await self._pusher.check(params.url)
        return await self._pusher.add(caller, found, params)

    @answers
    async def on_get_task_push_notification_config(
        self, params: a2a.GetTaskPushNotificationConfigRequest, context: ServerCallContext
    ) -> a2a.TaskPushNotificationConfig:
        """Show one address of a task."""
        caller, _ = await self._task_of(params.task_id, context)
        for config in await self._pusher.configs(caller, params.task_id):
            if config.id == params.id:
                return config
        raise TaskNotFoundError(f"Task {params.task_id} has no push notification config {params.id}")

    @answers
    async def on_list_task_push_notification_configs(
        self, params: a2a.ListTaskPushNotificationConfigsRequest, context: ServerCallContext
    ) -> a2a.ListTaskPushNotificationConfigsResponse:
        """Show all addresses of a task."""
        caller, _ = await self._task_of(params.task_id, context)
        configs = await self._pusher.configs(caller, params.task_id)
        return a2a.ListTaskPushNotificationConfigsResponse(configs=configs)

    @answers
    async def on_delete_task_push_notification_config(
        self, params: a2a.DeleteTaskPushNotificationConfigRequest, context: ServerCallContext
    ) -> None:
        """Remove an address of a task."""
        caller, _ = await self._task_of(params.task_id, context)
        await self._pusher.remove(caller, params.task_id, params.id)

    async def _task_of(self, task_id: str, context: ServerCallContext) -> tuple[Caller, Followed | a2a.Task]:
        """The caller of a request about a task, and the task.

        Raises:
            TaskNotFoundError: The caller has given no such task to the agent.
        """
        caller, peer = await self._served(context)
        return caller, await caller.find(task_id, peer)

    # Cards

    @answers
    async def on_get_extended_agent_card(
        self, params: a2a.GetExtendedAgentCardRequest, context: ServerCallContext
    ) -> a2a.AgentCard:
        """The card of the agent for callers who are known."""
        _, peer = await self._served(context)
        card = await self._card_of(peer, True)
        assert card is not None
        return card


async def _is_gone(context: ServerCallContext) -> bool:
    """Whether the client has gone away. Over gRPC, its request is canceled then."""
    request: Any = context.state.get(REQUEST)
    return request is not None and await request.is_disconnected()


async def _listen(followed: Followed, config: a2a.SendMessageConfiguration | None) -> AsyncGenerator[a2a.Task | Update]:
    listening = followed.listen()
    try:
        async for event in listening:
            yield apply_history_length(event, config) if isinstance(event, a2a.Task) else event
    finally:
        await listening.aclose()


def _check_modes(message: a2a.Message, card: a2a.AgentCard) -> None:
    """Check that the agent takes what a message has.

    Raises:
        ContentTypeNotSupportedError: The agent does not take the type of a part.
    """
    modes = set(card.default_input_modes).union(*(skill.input_modes for skill in card.skills))
    for part in message.parts:
        kind = part.media_type.partition(";")[0].strip().lower()
        first = kind.partition("/")[0]
        if kind and not {kind, f"{first}/*", "*/*"} & modes:
            raise ContentTypeNotSupportedError(f"The agent does not take {kind}: it takes {', '.join(sorted(modes))}")


def _cursor(task: a2a.Task) -> ListTasksCursor:
    return ListTasksCursor(task.status.timestamp.ToNanoseconds(), task.id)


def _wanted(task: a2a.Task, params: a2a.ListTasksRequest) -> bool:
    if params.context_id and task.context_id != params.context_id:
        return False
    if params.status and task.status.state != params.status:
        return False
    after = params.status_timestamp_after.ToNanoseconds() if params.HasField("status_timestamp_after") else 0
    return task.status.timestamp.ToNanoseconds() >= after


def _shown(task: a2a.Task, params: a2a.ListTasksRequest) -> a2a.Task:
    shown = a2a.Task()
    shown.CopyFrom(apply_history_length(task, params))
    if not params.include_artifacts:
        shown.ClearField("artifacts")
    return shown
