"""A crew member on another host."""

from __future__ import annotations

import asyncio
import contextvars
import ssl
from collections.abc import Sequence
from os import PathLike
from typing import Any, ClassVar

from crewai import Task
from crewai.agents.agent_builder.base_agent import BaseAgent
from crewai.events.event_bus import crewai_event_bus
from crewai.events.types.agent_events import (
    AgentExecutionCompletedEvent,
    AgentExecutionErrorEvent,
    AgentExecutionStartedEvent,
)
from crewai.tools import BaseTool
from crewai.tools.agent_tools.agent_tools import AgentTools
from mqtt_agent import TLS, Agent, Password, TaskHandle, TaskStore, Token
from mqtt_agent.adapting.callers import AwaitingCaller, BlockingCaller, Caller, block
from mqtt_agent.adapting.requesters import Requester, RequesterSettings
from mqtt_agent.endpoints.timeouts import TASK_TIMEOUT
from mqtt_agent.sync import Agent as SyncAgent
from mqtt_agent.transport import Bound, BrokerSettings, MessageAudit, MessageIdentity
from pydantic import ConfigDict, Field, PrivateAttr, model_validator
from typing_extensions import Self

from crewai_mqtt_agent.answers import read_answer
from crewai_mqtt_agent.assignment import assign
from crewai_mqtt_agent.conversation import OnQuestion, work

__all__ = ["MQTTAgent"]


class MQTTAgent(BaseAgent):
    """A crew member on another host. The member needs no language model here.

    The member takes part as any other agent does: in sequential and hierarchical crews, in async tasks, as the target
    of a delegation. The peer gets the task's description, expected output and context as its prompt. The peer's
    progress becomes events on CrewAI's bus, and the peer's questions go to ``on_question``.

    A task outlives crashes of the peer: the task is given once, it is stored at both ends, and the result comes when
    the peer is back. With ``agent_id`` and ``run_id``, a task outlives this process too: a crew that is kicked off
    again gets the result of the task that it gave before. In a served crew, ``agent_id`` is enough for that.

    Example:
        >>> analyst = MQTTAgent(role="analyst", peer="analyst", broker="mqtt://localhost:1883")  # doctest: +SKIP
        >>> crew = Crew(agents=[writer, analyst], tasks=[...])  # doctest: +SKIP

    Attributes:
        peer: The agent id of the agent that does the work.
        broker: A URL, or several for failover; None means ``$MQTT_AGENT_BROKER``, then ``mqtt://localhost:1883``. See
            :class:`mqtt_agent.Connection`.
        namespace: The prefix of all topics.
        agent_id: The id under which this program gives tasks; None makes a new id. Members with the same settings
            share one id and one connection.
        run_id: A name for the crew's work. A crew that is kicked off again under this name, also in another process,
            gets the same answer to the same task. None: each kickoff is new work. Needs an ``agent_id``.
        store: Where the given tasks are kept; see :class:`mqtt_agent.Agent`. In memory if there is no ``agent_id``.
        pool: Whether several processes, such as the workers of a web server, give tasks under ``agent_id``. Then
            ``store`` must be the URL of a PostgreSQL database. A crew that is kicked off again with the same ``run_id``
            in any of these processes gets the result of the task that was given before. Needs an ``agent_id``.
        credentials: A :class:`mqtt_agent.Password` or a :class:`mqtt_agent.Token`.
        tls: An ``ssl.SSLContext`` or a :class:`mqtt_agent.TLS`.
        bound: Whether the endpoint speaks sender-bound topics: ``"prefer"``, ``"require"`` or ``"off"``; see
            :class:`mqtt_agent.transport.BrokerSettings`.
        identity: Signs the endpoint's messages, and proves who has signed those of others; see
            :class:`mqtt_agent.identity.Identity`.
        audit: Keeps a line about each message that the endpoint sends and receives; see
            :class:`mqtt_agent.identity.Audit`.
        timeout: Seconds that a task may take. After that, the task is canceled. None for no limit.
        wait_online: Whether to wait for a peer that was never seen. If the peer was seen before and is offline now,
            the task always waits.
        send_inputs: Whether to send the crew's inputs as the task's ``data``, which a served crew or flow takes as
            its inputs.
        on_question: Answers the peer's questions. It is called in a thread with the question and the JSON Schema of the
            answer, or None instead of a schema. Without ``on_question``, the user is asked at the
            console; in a served crew, the crew's requester is asked.
    """

    model_config: ClassVar[ConfigDict] = ConfigDict(arbitrary_types_allowed=True)

    goal: str = "Do the work that is given to it, on another host"
    backstory: str = ""
    peer: str
    broker: str | Sequence[str] | None = Field(default=None, repr=False, exclude=True)  # the URL may hold a password
    namespace: str = "a2a/v1"
    agent_id: str | None = None
    run_id: str | None = None
    store: TaskStore | str | PathLike[str] | None = Field(default=None, exclude=True)
    pool: bool = False
    credentials: Password | Token | None = Field(default=None, repr=False, exclude=True)
    tls: ssl.SSLContext | TLS | None = Field(default=None, repr=False, exclude=True)
    bound: Bound = "prefer"
    identity: MessageIdentity | None = Field(default=None, repr=False, exclude=True)
    audit: MessageAudit | None = Field(default=None, repr=False, exclude=True)
    timeout: float | None = TASK_TIMEOUT
    wait_online: bool = False
    send_inputs: bool = False
    on_question: OnQuestion | None = Field(default=None, exclude=True)

    # CrewAI reads and sets these attributes on every agent, though BaseAgent does not have them.
    function_calling_llm: Any = Field(default=None, exclude=True)
    step_callback: Any = Field(default=None, exclude=True)

    _last_messages: list[Any] = PrivateAttr(default_factory=list)
    _given: set[asyncio.Future[TaskHandle]] = PrivateAttr(default_factory=set)
    _lease: Requester | None = PrivateAttr(default=None)

    @model_validator(mode="after")
    def _check_run_id(self) -> Self:
        if self.run_id is not None and self.agent_id is None:
            raise ValueError("run_id needs an agent_id: only the agent that gave a task gets its result")
        if self.pool and self.agent_id is None:
            raise ValueError("pool needs an agent_id: the processes of a pool give tasks in one name")
        return self

    @property
    def last_messages(self) -> list[Any]:
        """The last prompt and its answer, as messages."""
        return list(self._last_messages)

    @property
    def requester(self) -> SyncAgent:
        """The agent that gives the tasks. Members with equal settings share one agent."""
        if self._lease is None:
            broker = BrokerSettings(
                self.broker, self.namespace, self.credentials, self.tls, self.bound, self.identity, self.audit
            )
            options = {"pool": True} if self.pool else {}
            settings = RequesterSettings(broker, self.agent_id, self.store, prefix="crew", options=options)
            self._lease = Requester(settings)
        return self._lease.agent

    # Work

    def execute_task(self, task: Any, context: str | None = None, tools: list[BaseTool] | None = None) -> str:
        """Give a task to the peer, and wait for the answer.

        Raises:
            PeerUnavailable: There is no such agent.
            TaskFailed, TaskRejected, TaskCanceled, TaskTimeout: See :meth:`mqtt_agent.TaskHandle.result`.
            TransportError: The broker cannot be reached, or it refuses the connection.
        """
        return block(self._execute(BlockingCaller(self.requester), task, context, tools))

    async def aexecute_task(self, task: Any, context: str | None = None, tools: list[BaseTool] | None = None) -> str:
        """The async form of :meth:`execute_task`. When it is canceled, the peer's task is canceled."""
        return await self._execute(AwaitingCaller(self.requester), task, context, tools)

    async def _execute(self, caller: Caller, task: Task, context: str | None, tools: list[BaseTool] | None) -> str:
        self.reset_tool_failures()
        assignment = assign(task, self.role, context, tools or self.tools, self.crew, self.run_id)
        crewai_event_bus.emit(
            self, AgentExecutionStartedEvent(agent=self, task=task, tools=tools, task_prompt=assignment.prompt)
        )
        data = getattr(self.crew, "_inputs", None) if self.send_inputs else None
        scope = contextvars.copy_context()  # this context has the caller's event scope and stream sinks of CrewAI
        try:
            value = await caller.on_loop(work, self, task, assignment, data, self._given, scope)
            answer = read_answer(value, task, self.peer, assignment.task_id)
        except BaseException as error:
            what = str(error) or type(error).__name__
            crewai_event_bus.emit(self, AgentExecutionErrorEvent(agent=self, task=task, error=what))
            raise
        self._last_messages = [
            {"role": "user", "content": assignment.prompt},
            {"role": "assistant", "content": answer},
        ]
        crewai_event_bus.emit(self, AgentExecutionCompletedEvent(agent=self, task=task, output=answer))
        return answer

    def cancel(self, reason: str | None = None) -> None:
        """Cancel all tasks that the peer does for this member; they fail with ``TaskCanceled``. Safe in any thread."""
        self.requester.run_on_loop(_cancel, list(self._given), reason)

    def close(self) -> None:
        """Disconnect, unless another member that shares the connection is open. The next task connects again."""
        if self._lease is not None:
            self._lease.close()

    def copy(self) -> Self:
        """Make a copy of the member for another run of the crew. The copy uses the same connection."""
        copied = super().copy()
        for name in ("broker", "store", "credentials", "tls", "identity", "audit", "on_question"):
            setattr(copied, name, getattr(self, name))
        return copied

    # The other methods that CrewAI's BaseAgent requires

    def create_agent_executor(self, tools: list[BaseTool] | None = None) -> None:
        """Do nothing: the peer does the work."""

    def get_delegation_tools(self, agents: Sequence[BaseAgent]) -> list[BaseTool]:
        """The tools by which the peer can give work to its coworkers here."""
        return AgentTools(agents=agents).tools()

    def get_platform_tools(self, apps: Any) -> list[BaseTool]:
        """No tools: they belong to the agent that has the language model."""
        return []

    def get_mcp_tools(self, mcps: Any) -> list[BaseTool]:
        """No tools: they belong to the agent that has the language model."""
        return []


async def _cancel(agent: Agent, given: list[asyncio.Future[TaskHandle]], reason: str | None) -> None:
    # This also waits for tasks that are being given right now, since the peer gets them a moment later.
    for handle in await asyncio.gather(*map(asyncio.shield, given), return_exceptions=True):
        if isinstance(handle, TaskHandle):
            await handle.cancel(reason)
