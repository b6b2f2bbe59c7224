"""Decides when a call runs at its server: each call runs once, a limited number at the same time, the others wait."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections import OrderedDict
from concurrent.futures import Future
from functools import partial
from typing import Any

from mqtt_agent.aio.faultlog import FaultLog
from mqtt_agent.aio.waiting import within
from mqtt_agent.logs import logger_of
from mqtt_agent.metering import Levels
from mqtt_agent.tools.serving.answers import Answers, acknowledge
from mqtt_agent.tools.serving.call_room import CallRoom
from mqtt_agent.tools.serving.contents import Contents
from mqtt_agent.tools.serving.execution import Execution, ServedTool, content_of, same_request
from mqtt_agent.tools.serving.inputs import Inputs
from mqtt_agent.tools.serving.replay import CallKey, ReplayStore
from mqtt_agent.tools.serving.runner import CallRunner
from mqtt_agent.tools.serving.scope import Scope
from mqtt_agent.transport import InboundMessage
from mqtt_agent.wire import Call, CallFault
from mqtt_agent.wire.calls import CANCELED, OVERLOADED

__all__ = ["Executor"]

logger: logging.Logger = logger_of(__name__)

_CANCELED_WITHIN = 2.0  # seconds
_REASON = 300  # characters of a cancel's reason that the answer repeats
_calls: Levels[Executor] = Levels(
    "mqtt_agent.server.calls",
    "{call}",
    "The calls that a tool server has: running, or waiting for a free handler.",
    lambda executor: executor.levels(),
)


class Executor:
    """Executes the calls of one tool server.

    Args:
        scope: What all parts of the server share.
        max_concurrency: How many handlers run at once. Further calls wait in the order of their arrival. A plain
            ``def`` handler counts until its thread ends, even when its call is over: a thread cannot be stopped.
        replay: The latest responses of the server.
        contents: What handlers have shared with their callers.

    Attributes:
        answers: Publishes the responses.
        inputs: Asks the callers of running calls for input.
    """

    def __init__(
        self, scope: Scope, max_concurrency: int, replay: ReplayStore, contents: Contents | None = None
    ) -> None:
        self.answers: Answers = Answers(scope)
        self.inputs: Inputs = Inputs(scope)
        self._runner = CallRunner(scope, self.inputs, replay, max_concurrency, contents)
        self._max_concurrency = max_concurrency
        self._replay = replay
        self._known: dict[CallKey, Execution] = {}
        self._queue: OrderedDict[Execution, None] = OrderedDict()
        self._room = CallRoom()
        self._faults = FaultLog(logger)
        self._running = 0
        self._left_behind = 0  # how many of the running handlers are threads whose calls are over
        self._told: set[str] = set()  # the tools that have left threads behind
        self._idle = asyncio.Event()
        self._idle.set()
        self._hurry = asyncio.Event()
        self._name = scope.name
        _calls.watch(self)

    def levels(self) -> list[tuple[int, dict[str, str]]]:
        """How many calls run and wait, for the metrics."""
        counts = {"waiting": len(self._queue), "running": self._running}
        return [
            (number, {"mqtt_agent.server": self._name, "mqtt_agent.state": state}) for state, number in counts.items()
        ]

    @property
    def active(self) -> int:
        """How many calls run or wait for their turn."""
        return len(self._known)

    @property
    def handlers(self) -> list[asyncio.Task[None] | None]:
        """The asyncio tasks of the calls that run; None for a call that waits for its turn."""
        return [execution.task for execution in self._known.values()]

    @property
    def remembers(self) -> float:
        """How many seconds the responses to calls are kept."""
        return self._replay.max_age

    @property
    def forgotten(self) -> float:
        """A call that this server does not know may have run, if it was sent before this time; Unix seconds."""
        return self._replay.forgotten

    def knows(self, key: CallKey) -> bool:
        """Whether a call runs, waits, or has a stored response."""
        return key in self._known or self._replay.get(key) is not None

    def submit(
        self,
        tool: ServedTool,
        call: Call,
        reply_to: str,
        message: InboundMessage,
        *,
        bound: bool,
        in_query: bool = False,
    ) -> None:
        """Run a call, unless the call is a repeat.

        A repeat of a call that runs or waits joins that call. A repeat of a call that is over gets the stored response
        again. A call that has the id of another call is refused.

        Args:
            tool: The tool that is called.
            call: The call.
            reply_to: The caller's topic for responses.
            message: The message of the call.
            bound: Whether the message arrived on a sender-bound topic. Anybody may send a message on a plain topic, so
                such a message is never a repeat of a call on a sender-bound topic.
            in_query: Whether the message is a query that has the call in it.
        """
        key = (call.client, call.call_id, bound)
        known = self._known.get(key)
        if known is not None:
            if known.content != content_of(tool, call):
                self._refuse_id(call, reply_to, message)
                return
            self._room.join(known, message)
            if known.task is not None:
                message.work_started()
                self.inputs.ask_again(key)
            else:
                self._wait_longer(known, message.message_expiry)
            return
        stored = self._replay.get(key)
        if stored is not None:
            response, request = stored
            if same_request(request, tool, call):
                self.answers.publish_soon(call.call_id, reply_to, [message], response)
            else:
                self._refuse_id(call, reply_to, message)
            return
        expires = _expires(message.message_expiry)
        execution = Execution(tool, call, reply_to, bound, [message], expires, in_query=in_query)
        must_wait = self._running >= self._max_concurrency
        if must_wait and not self._room.hold(execution):
            self._refuse_for_room(execution, message)
            return
        self._known[key] = execution
        self._idle.clear()
        if must_wait:
            self._queue[execution] = None
            self._drop_later(execution, message.message_expiry)
        else:
            self._start(execution)

    def _refuse_id(self, call: Call, reply_to: str, message: InboundMessage) -> None:
        what = f"{call.client} has used the call id {call.call_id!r:.80} for another tool or for other arguments"
        error = CallFault(type="invalid_arguments", code="CALL_ID_IN_USE", message=f"{what}: choose another call id")
        self.answers.reject(call.call_id, reply_to, message, error)

    def _refuse_for_room(self, execution: Execution, message: InboundMessage) -> None:
        call, name = execution.call, execution.tool_name
        what = f"too many calls of {call.client} wait at server {self._name}"
        self._faults.refuse(message, "a call is refused", what)
        error = CallFault(type="unavailable", code=OVERLOADED, message=f"{what}: call {name} again later")
        error.retryable, error.data = True, {"maybe_executed": False}
        self.answers.reject(call.call_id, execution.reply_to, message, error)

    def known(self, client: str, call_ids: list[str], *, bound: bool) -> list[str]:
        """Which of these calls run, wait, or are over with a stored response. Stored responses are sent again.

        Args:
            client: The caller's id.
            call_ids: The ids of the calls.
            bound: Whether the query arrived on a sender-bound topic. Only then it finds calls that did so, too.
        """
        known: dict[str, None] = {}
        for kind in (True, False) if bound else (False,):
            reply_to = self.answers.topic_for(client, bound=kind)
            for call_id in call_ids:
                key = (client, call_id, kind)
                kept = self._replay.get(key)
                if kept is not None:
                    self.answers.resend(call_id, reply_to, kept[0])
                if kept is not None or key in self._known:
                    known[call_id] = None
                    self.inputs.ask_again(key)
        return list(known)

    def cancel(self, tool: str, key: CallKey, reason: str | None = None) -> bool:
        """Stop a call whose caller does not want the result any more.

        The call is answered nevertheless. On a plain topic, anybody may send a cancel, and the caller must not wait
        for nothing then.

        Args:
            tool: The name of the tool whose call is canceled. A call of another tool with the same id goes on.
            key: The name of the call.
            reason: Why, as text for the caller.

        Returns:
            Whether the call runs or waits here.
        """
        execution = self._known.get(key)
        if execution is None or execution.tool_name != tool:
            return False
        message = f"the call was canceled: {(reason or 'its caller asked for it')[:_REASON]}"
        data = {"maybe_executed": execution.task is not None}
        self._stop(execution, CallFault(code=CANCELED, message=message, data=data, retryable=True))
        return True

    async def drain(self, timeout: float) -> None:
        """Wait until all calls are over. Calls that still run after ``timeout`` seconds are canceled and answered."""
        waiting = [asyncio.ensure_future(self._idle.wait()), asyncio.ensure_future(self._hurry.wait())]
        await asyncio.wait(waiting, timeout=max(0.0, timeout), return_when=asyncio.FIRST_COMPLETED)
        for task in waiting:
            task.cancel()
        if not self._idle.is_set():
            for execution in list(self._known.values()):
                data = {"maybe_executed": execution.task is not None}
                error = CallFault(type="unavailable", message="the tool server stopped", retryable=True, data=data)
                self._stop(execution, error)
            with contextlib.suppress(asyncio.TimeoutError):
                await within(self._idle.wait(), _CANCELED_WITHIN)
        still_run = len(self._known) + self._left_behind
        if still_run:
            logger.warning(
                "%d handlers still run although their calls are over; the process ends when they end", still_run
            )
        self._runner.close()

    def hurry(self) -> None:
        """Make :meth:`drain` stop waiting, and cancel the calls that still run."""
        self._hurry.set()

    def _start(self, execution: Execution) -> None:
        self._running += 1
        self._room.release(execution)
        if execution.expiry is not None:
            execution.expiry.cancel()
        # The task needs no other reference: `_known` keeps the execution, and the execution keeps the task.
        execution.task = asyncio.get_running_loop().create_task(self._run(execution))

    def _stop(self, execution: Execution, answer: CallFault) -> None:
        execution.stop(answer)
        if execution.task is None:
            del self._queue[execution]
            self._start(execution)  # the call is answered and acknowledged, and its handler is not called

    async def _run(self, execution: Execution) -> None:
        answered = False
        try:
            if execution.expires is not None and time.monotonic() > execution.expires:
                self._acknowledge_expired(execution)
            else:
                response = await self._runner.run(execution)
                # The call counts as running until the broker has its response.
                over, call_id = partial(self._on_over, execution), execution.call.call_id
                self.answers.publish_soon(call_id, execution.reply_to, execution.messages, response, over)
                answered = True
        finally:
            if not answered:
                self._on_over(execution)

    def _on_over(self, execution: Execution) -> None:
        self._forget(execution)
        if execution.thread is None or execution.thread.done():
            self._on_place_free()
        else:
            self._leave_behind(execution, execution.thread)

    def _forget(self, execution: Execution) -> None:
        self._known.pop(execution.key, None)
        self._room.leave(execution)
        if not self._known:
            self._idle.set()

    def _on_place_free(self) -> None:
        self._running -= 1
        while self._queue and self._running < self._max_concurrency:
            self._start(self._queue.popitem(last=False)[0])

    # Calls that expire while they wait

    def _drop_later(self, execution: Execution, seconds: float | None) -> None:
        if execution.expiry is not None:
            execution.expiry.cancel()
            execution.expiry = None
        if seconds is not None:
            execution.expiry = asyncio.get_running_loop().call_later(seconds, self._drop_expired, execution)

    def _wait_longer(self, execution: Execution, seconds: float | None) -> None:
        """Let a waiting call expire with its repeat, if the repeat expires later."""
        expires = _expires(seconds)
        if execution.expires is not None and (expires is None or expires > execution.expires):
            execution.expires = expires
            self._drop_later(execution, seconds)

    def _drop_expired(self, execution: Execution) -> None:
        del self._queue[execution]
        self._acknowledge_expired(execution)
        self._forget(execution)

    def _acknowledge_expired(self, execution: Execution) -> None:
        logger.debug("call %s expired before its turn", execution.call.call_id)
        acknowledge(execution.messages)

    # Threads that cannot be stopped

    def _leave_behind(self, execution: Execution, thread: Future[Any]) -> None:
        """Keep the place of a call that is over, until the thread of its handler ends."""
        self._left_behind += 1
        loop, name = asyncio.get_running_loop(), execution.tool_name
        logger.log(
            logging.DEBUG if name in self._told else logging.WARNING,
            "a call of tool %s is over, but its handler still runs in a thread, which cannot be stopped: it counts as "
            "one of the %d handlers that run at once; let the handler check ToolContext.canceled, and return",
            name,
            self._max_concurrency,
        )
        self._told.add(name)

        def on_end(thread: Future[Any]) -> None:
            with contextlib.suppress(RuntimeError):  # the loop is closed, and no call waits any more
                loop.call_soon_threadsafe(self._on_left_behind_end)

        thread.add_done_callback(on_end)

    def _on_left_behind_end(self) -> None:
        self._left_behind -= 1
        self._on_place_free()


def _expires(seconds: float | None) -> float | None:
    return None if seconds is None else time.monotonic() + seconds
