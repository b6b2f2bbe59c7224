"""Reads and checks the tasks and control messages that arrive at an executor, and passes them on or refuses them.

Any client of the broker may send such messages. No message can harm the agent, whatever the message contains.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections import Counter
from functools import partial
from typing import Any

import pydantic_core

from mqtt_agent.agents.executing.ledger import ReceivedTasks
from mqtt_agent.agents.executing.replies import Replies
from mqtt_agent.agents.retention import checked_retention
from mqtt_agent.agents.scope import Scope
from mqtt_agent.aio.background_tasks import BackgroundTasks
from mqtt_agent.aio.faultlog import FaultLog
from mqtt_agent.display.suggestions import counted
from mqtt_agent.endpoints.markers import MARKER_PREFIX
from mqtt_agent.endpoints.room import Room
from mqtt_agent.errors import StoreError, WireError
from mqtt_agent.logs import logger_of
from mqtt_agent.transport import InboundMessage
from mqtt_agent.wire import Control, Task, decode, is_identifier, read_time
from mqtt_agent.wire.messages import footprint
from mqtt_agent.wire.tasks import MOST_ASKED

__all__ = ["Inbox"]

logger: logging.Logger = logger_of(__name__)

_MOST_OF_ONE, _MOST_OF_ALL = 1000, 5000
"""How many messages about many tasks may wait, of one requester and in all. A requester sends further ones again."""
_MOST_CONTROLS, _BESIDES = 64 * 1024 * 1024, 8192
"""Bytes of memory for the other control messages that wait, and bytes that each takes besides itself, about. They are
acknowledged on arrival, so the broker sends any number of them while the store is slow or fails."""
_SKEW, _LEAST_REMEMBERED = 120.0, 600.0  # seconds; clocks may differ, and a message may wait at the broker
_FROM_SESSION_WITHIN = 5.0  # seconds
_TOO_MANY_EARLY = "a cancel of a task that has not arrived, because too many such cancels are kept already"


class Inbox:
    """Reads the messages on an agent's inbox topics and control topics.

    Args:
        scope: The agent's shared values.
        received: Gets the valid messages.
        replies: Sends the rejections of invalid tasks.
        allowed: The requesters whose tasks are run; None means all.
        retention: How many seconds a finished task is kept; None or infinity means for ever.
    """

    def __init__(
        self,
        scope: Scope,
        received: ReceivedTasks,
        replies: Replies,
        allowed: frozenset[str] | None = None,
        retention: float | None = None,
    ) -> None:
        self._scope = scope
        self._received = received
        self._replies = replies
        self._allowed = allowed
        self._tasks = BackgroundTasks(self._on_failure)
        self._room = Room(_MOST_CONTROLS)
        self._many: Counter[str] = Counter()  # by requester: its messages about many tasks that wait or are worked on
        self._remembers = max(checked_retention(retention) - _SKEW, _LEAST_REMEMBERED)
        self._began = time.time()
        self._faults = FaultLog(logger)

    def on_task(self, message: InboundMessage) -> None:
        """Take a task. The message is acknowledged when the task is stored, or when it is refused."""
        if message.retain:
            self._faults.refuse(message, "a retained task was ignored", "tasks are never retained")
            message.acknowledge()
            return
        writer = self._scope.topics.bound.writer(message.topic)
        try:
            task = decode(Task, message.payload, self._scope.max_payload)
        except WireError as error:
            self._refuse_unreadable(message, error, writer)
            self._faults.refuse(message, "an unreadable task", error)
            message.acknowledge()
            return
        if writer is not None and not self._is_from(writer, task, message):
            message.acknowledge()
            return
        reply_to = message.response_topic if writer is None else self._replies.bound_topic(writer)
        problem = self._problem(task, reply_to, bound=writer is not None)
        if problem is not None:
            signed = message.may_be_signed_for(task.sender)
            self._faults.refuse(message, "a task that is refused", problem)
            message.refuse(problem, "INVALID_TASK")
            self._refuse(task, reply_to, problem, bound=writer is not None, signed=signed)
            message.acknowledge()
            return
        if message.refusal is not None:
            reason, code = message.refusal.reason, message.refusal.code
            self._replies.refuse(task, reply_to, "unauthorized", reason, code, signed=message.may_be_signed_for(None))
            message.acknowledge()
            return
        if not self._is_allowed(task.sender):
            what = f"{task.sender or 'a requester without a name'} may not give tasks to {self._scope.agent_id}"
            self._faults.tell(message.topic, "a task of a requester that is not allowed", repr(task.sender))
            signed = message.may_be_signed_for(task.sender)
            message.refuse(what, "NOT_ALLOWED")
            self._replies.refuse(task, reply_to, "unauthorized", what, "NOT_ALLOWED", signed=signed)
            message.acknowledge()
            return
        expires_at = None if task.expires_at is None else read_time(task.expires_at)
        message.hold()
        self._tasks.start(self._take(task, message, reply_to, expires_at), name=task.task_id)

    def _is_from(self, writer: str, named: Task | Control, message: InboundMessage) -> bool:
        """Whether a message on a sender-bound topic is from the agent that it names. If so, the sender is filled in."""
        if named.sender not in (None, writer):
            self._faults.refuse(message, "a message in the name of another agent", repr(named.sender))
            return False
        named.sender = writer
        return True

    def _is_allowed(self, sender: str | None) -> bool:
        return self._allowed is None or sender in self._allowed

    async def _take(self, task: Task, message: InboundMessage, reply_to: str | None, expires_at: float | None) -> None:
        if self._may_be_forgotten(message) and await self._received.find(task.task_id, task.sender) is None:
            # If the requester still waits, it asks for the task, and sends it again with a new signature.
            what = "a task that may be the repeat of a forgotten task"
            self._faults.refuse(message, what, f"task {task.task_id} of {task.sender!r} was signed too long ago")
            message.acknowledge()
            return
        verified = task.sender is not None and message.proves(task.sender)
        take = partial(self._received.take, task, reply_to, expires_at, message, verified=verified)
        try:
            await self._scope.retry.until_stored(take, f"task {task.task_id:.80}")
        except StoreError as error:
            if error.permanent:  # a repeat would fail too, and without its PUBACK the broker sends nothing more
                message.acknowledge()
            raise

    def _may_be_forgotten(self, message: InboundMessage) -> bool:
        """Whether a task may have run, although the store does not know it.

        A signature on a task without an end is valid for ever, and somebody may have captured it. A store forgets the
        finished tasks after their retention, and a store in memory forgets all of them with its process. Only a task
        from the session that the broker has kept for the earlier process has not run.
        """
        if not message.must_be_proven:
            return False
        now, signed_at = time.time(), message.proof.signed_at / 1000
        if signed_at < now - self._remembers:
            return True
        from_session = self._scope.connection.session_present and now < self._began + _FROM_SESSION_WITHIN
        return signed_at < self._scope.store.since and not from_session

    def _problem(self, task: Task, reply_to: str | None, *, bound: bool) -> str | None:
        """Why a task is refused; None when the task is valid."""
        if not is_identifier(task.task_id):
            return f"task id {task.task_id!r:.80} cannot be a topic level"
        if task.task_id.startswith(MARKER_PREFIX):
            return f"task ids that begin with {MARKER_PREFIX!r} are reserved for marker messages"
        if task.sender is not None and not is_identifier(task.sender):
            return f"agent id {task.sender!r:.80} cannot be a topic level"
        if task.to is not None and task.to != self._scope.agent_id:
            return f"the task is for {task.to!r:.80}, not for {self._scope.agent_id!r}"
        if reply_to is not None and not bound:
            allowed = self._replies.default_topics(task.task_id, task.sender)
            if reply_to not in allowed:
                return f"the Response Topic must be one of {', '.join(allowed)}, not {reply_to!r:.200}"
        if task.expires_at is not None and read_time(task.expires_at) is None:
            return f"expires_at {task.expires_at!r:.80} is not an ISO 8601 time such as 2099-12-31T23:59:59Z"
        return None

    def _refuse(self, task: Task, reply_to: str | None, problem: str, *, bound: bool, signed: bool) -> None:
        if is_identifier(task.task_id):
            sender = task.sender if is_identifier(task.sender) else None
            if not bound and reply_to not in self._replies.default_topics(task.task_id, sender):
                reply_to = None
            task = task.model_copy(update={"sender": sender})
            self._replies.refuse(task, reply_to, "invalid_task", problem, signed=signed)

    def _refuse_unreadable(self, message: InboundMessage, error: WireError, writer: str | None) -> None:
        """Reject an unreadable task, if the payload or the correlation data contains the task's id."""
        fields: Any = None
        if len(message.payload) <= self._scope.max_payload:
            with contextlib.suppress(ValueError, RecursionError):
                fields = pydantic_core.from_json(message.payload)
        told: dict[str, Any] = fields if isinstance(fields, dict) else {}  # pyright: ignore[reportUnknownVariableType]
        task_id = told.get("task_id")
        if not is_identifier(task_id):
            task_id = (message.correlation_data or b"").decode(errors="replace")
        if is_identifier(task_id):
            reply_to = self._readable_by(str(task_id), message, writer)
            reader = writer or self._scope.topics.agent_of_results(reply_to or "")
            signed = message.may_be_signed_for(reader)
            task = Task(task_id=str(task_id), sender=writer)
            self._replies.refuse(task, reply_to, "invalid_task", str(error), signed=signed)

    def _readable_by(self, task_id: str, message: InboundMessage, writer: str | None) -> str | None:
        """The topic to which the rejection of an unreadable task goes; None for the default topics."""
        if writer is not None:
            return self._replies.bound_topic(writer)
        topics, reply_to = self._scope.topics, message.response_topic
        allowed = reply_to == topics.task_result(task_id) or topics.agent_of_results(reply_to or "") is not None
        return reply_to if allowed else None

    def on_control(self, message: InboundMessage) -> None:
        """Take a control message, which cancels a task, answers a question, or asks for the state of a task."""
        try:
            control = decode(Control, message.payload, self._scope.max_payload)
        except WireError as error:
            self._faults.refuse(message, "an unreadable control message", error)
            return
        if message.retain:
            message.refuse("control messages are never retained")
            return
        if control.task_id.startswith(MARKER_PREFIX):
            return
        if not is_identifier(control.task_id) or not (control.sender is None or is_identifier(control.sender)):
            self._faults.refuse(message, "a control message with impossible names", repr(control.task_id))
            return
        writer = self._scope.topics.bound.writer(message.topic)
        if writer is not None and not self._is_from(writer, control, message):
            return
        if not self._is_allowed(control.sender):
            self._faults.refuse(message, "a control message of an agent that is not allowed", repr(control.sender))
            return
        reply_to = None if writer is None else self._replies.bound_topic(writer)
        if control.task_ids is not None and control.action in ("get", "cancel"):
            self._take_many(control, control.task_ids, message, reply_to)
            return
        owner, size = control.sender or "", footprint(message.payload) + _BESIDES
        proven = writer is not None or message.proves(owner)
        if not self._room.take(owner, size, proven=proven):
            self._faults.refuse(message, "a control message, because too many of them wait already", repr(owner))
            return
        handle = partial(self._handle_control, control, message, reply_to)
        what = f"a control message for task {control.task_id:.80}"
        leave = partial(self._room.leave, owner, size, proven=proven)
        self._tasks.start(self._scope.retry.until_stored(handle, what), name=control.task_id, on_end=leave)

    def _take_many(self, control: Control, task_ids: list[str], message: InboundMessage, reply_to: str | None) -> None:
        """Take a control message about many tasks. Only the requester that the message names gets the answers."""
        if control.sender is None or len(task_ids) > MOST_ASKED or not all(map(is_identifier, task_ids)):
            what = "a control message about many tasks that is not valid"
            self._faults.refuse(message, what, f"{counted(len(task_ids), 'task')} of {control.sender!r}")
            return
        if self._many[control.sender] >= _MOST_OF_ONE or self._many.total() >= _MOST_OF_ALL:
            what = "a control message about many tasks, because too many of them wait already"
            self._faults.refuse(message, what, repr(control.sender))
            return
        self._many[control.sender] += 1
        # On a plain topic, nothing proves the sender. So nothing goes to topics that others may read.
        where = reply_to or self._scope.topics.results(control.sender)
        each = list(dict.fromkeys(task_ids))
        if control.action == "get":
            handle = partial(self._received.answer, each, control.sender, where)
        else:
            handle = partial(self._cancel_many, each, control.sender, control.reason, where, message)
        what = f"a control message for {counted(len(task_ids), 'task')}"
        work, end = self._scope.retry.until_stored(handle, what), partial(self._on_many_end, control.sender)
        self._tasks.start(work, name=control.task_id, on_end=end)

    async def _cancel_many(
        self, task_ids: list[str], sender: str, reason: str | None, reply_to: str, message: InboundMessage
    ) -> None:
        if not await self._received.cancel_all(task_ids, sender, reason, reply_to):
            self._faults.refuse(message, _TOO_MANY_EARLY, repr(sender))

    def _on_many_end(self, sender: str) -> None:
        self._many[sender] -= 1
        if not self._many[sender]:
            del self._many[sender]

    async def _handle_control(self, control: Control, message: InboundMessage, reply_to: str | None) -> None:
        task_id, sender = control.task_id, control.sender
        record = await self._received.find(task_id, sender)
        if record is not None and not self._replies.may_touch(record, reply_to):
            what = "a control message on a plain topic about a task that was given on a sender-bound topic"
            self._faults.refuse(message, what, repr(sender))
        elif control.action == "cancel":
            if not await self._received.cancel(task_id, sender, control.reason, reply_to, record):
                self._faults.refuse(message, _TOO_MANY_EARLY, repr(sender))
        elif control.action == "input":
            key = self._scope.key("received", task_id, sender)
            if not await self._received.take_input(key, control.input_id, control.input):
                self._faults.refuse(message, "an answer to a question that was not asked", repr(control.input_id))
        elif control.action == "get":
            if reply_to is None and message.response_topic in self._replies.default_topics(task_id, sender):
                reply_to = message.response_topic
            if record is not None:
                await self._received.attach(record, reply_to)
            else:
                unknown = f"{self._scope.agent_id} does not know task {task_id}"
                message.refuse(unknown)
                signed = message.may_be_signed_for(sender)
                task = Task(task_id=task_id, sender=sender)
                self._replies.refuse(task, reply_to, "not_found", unknown, signed=signed)
        else:
            self._faults.refuse(message, "an unknown action", repr(control.action))

    def _on_failure(self, work: asyncio.Task[Any], error: BaseException) -> None:
        if isinstance(error, StoreError):
            # Nothing is lost: the broker delivers a task again, and the requester sends a control message again. When
            # the agent stops, StoreRetry has logged this once for all messages.
            level = logging.DEBUG if self._scope.retry.over else logging.ERROR
            what = "a message about task %.80s was not handled, because the store failed: %s"
            logger.log(level, what, work.get_name(), error)
        else:
            logger.error("a message about task %.80s could not be handled", work.get_name(), exc_info=error)

    async def drain(self) -> None:
        """Wait until the messages that have arrived are stored, or until storing them has failed."""
        await self._tasks.wait()
