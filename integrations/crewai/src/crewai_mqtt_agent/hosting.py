"""Crews, flows and agents of CrewAI as agents that take tasks, and continue after a crash."""

from __future__ import annotations

import inspect
import sys
from collections.abc import Callable, Coroutine, Generator
from contextlib import contextmanager
from functools import partial
from typing import Any

from crewai import Crew, CrewOutput, Flow, Task
from crewai.agents.agent_builder.base_agent import BaseAgent
from crewai.core.providers.human_input import set_provider
from crewai.events.event_context import restore_event_scope
from crewai.events.listeners.tracing.utils import (
    set_suppress_tracing_messages,
    set_tracing_enabled,
    should_enable_tracing,
)
from crewai.events.stream_context import add_stream_sink
from crewai.flow.async_feedback import HumanFeedbackPending
from crewai.flow.flow_config import flow_config
from crewai.telemetry.tracing.ephemeral import trace_consent
from mqtt_agent import Agent, TaskContext
from mqtt_agent.adapting.apart import run_apart
from mqtt_agent.adapting.content import as_text
from mqtt_agent.adapting.conversations import conversation_of
from mqtt_agent.adapting.options import AgentOptions
from mqtt_agent.adapting.parts import prompt_of
from mqtt_agent.adapting.serving import OnStarted, serve
from mqtt_agent.adapting.threads import run_for_handler
from typing_extensions import Unpack

from crewai_mqtt_agent.asking import (
    CrewAsker,
    FlowFeedback,
    FlowInput,
    HumanInput,
    borrowed_tools,
    current_requester,
)
from crewai_mqtt_agent.first_use import build_flow_classes
from crewai_mqtt_agent.places import Places
from crewai_mqtt_agent.reporting import Reporter, artifact_name, output_value

__all__ = [
    "aserve_agent",
    "aserve_crew",
    "aserve_flow",
    "host_agent",
    "host_crew",
    "host_flow",
    "serve_agent",
    "serve_crew",
    "serve_flow",
]

Factory = Callable[..., Any] | Crew | BaseAgent


def host_crew(factory: Factory, *, agent_id: str, **options: Unpack[AgentOptions]) -> Agent:
    """Make an agent that does each task with a crew of its own. Start the agent with ``async with``.

    The crew's inputs are the task's ``prompt`` and the keys of the task's ``data``; data that is no dictionary becomes
    the input ``data``. The output of the crew's last task is the result. The output of each of the crew's tasks is an
    artifact, and is stored: after a crash, no finished task is done again. With ``human_input``, the requester is
    asked. When the requester's task is canceled, the crew is canceled.

    Args:
        factory: A function that makes a new crew for each task; two runs of one crew disturb each other. A function
            with a parameter gets the :class:`mqtt_agent.TaskContext`, for example to see ``attempt``. Or a crew,
            which is copied for each task, or a class with ``@CrewBase``.
        agent_id: The agent's name.
        options: See :class:`mqtt_agent.Agent`: ``broker``, ``namespace``, ``description``, ``capabilities``,
            ``store``, ``credentials`` and so on.

    Raises:
        TypeError: ``factory`` is none of these.
    """
    target = _factory(factory)
    agent = Agent(agent_id, **options)

    async def handle(task: TaskContext) -> Any:
        requester = CrewAsker(task)
        try:
            made = await run_for_handler(lambda: _made(target, task), _thread_name(task))
            return await _run(requester, made)
        finally:
            requester.close()

    agent.on_task(handle)
    return agent


def host_agent(factory: Factory, *, agent_id: str, **options: Unpack[AgentOptions]) -> Agent:
    """Make an agent that does each task with a single CrewAI agent; the task's prompt is the work.

    The CrewAI agent may use the tools that a remote member was given in the requester's crew, and so delegate to the
    coworkers there.

    Args:
        factory: A function that makes a new CrewAI agent for each task, or a CrewAI agent, which is copied.
        agent_id: The agent's name.
        options: See :func:`host_crew`.
    """
    return host_crew(factory, agent_id=agent_id, **options)


def host_flow(factory: Factory, *, agent_id: str, **options: Unpack[AgentOptions]) -> Agent:
    """Make an agent that does each task with a flow. ``Flow.ask`` and ``@human_feedback`` ask the requester.

    After a crash, a flow with ``@persist`` finds its state again. Any other flow starts from its beginning. A requester
    continues the flow of an earlier task with the flow's ``id`` in the task's data. When the requester's name is
    proven, this id stands for a flow of this requester, and never for the flow of another requester.

    Args:
        factory: A subclass of ``Flow``, or a function that makes a new flow for each task.
        agent_id: The agent's name.
        options: See :func:`host_crew`.
    """
    return host_crew(factory, agent_id=agent_id, **options)


def serve_crew(
    factory: Factory, *, agent_id: str, on_started: OnStarted | None = None, **options: Unpack[AgentOptions]
) -> None:
    """Serve a crew until SIGINT or SIGTERM, and block. In async code, use :func:`aserve_crew`.

    Example:
        >>> serve_crew(build_crew, agent_id="report-crew", capabilities=["report"])  # doctest: +SKIP

    Args:
        factory: See :func:`host_crew`.
        agent_id: The agent's name.
        on_started: Called when the agent serves. By default, a line on the standard error says what is served.
        options: See :func:`host_crew`.
    """
    return serve(host_crew(factory, agent_id=agent_id, **options), "serve_crew", on_started)


def serve_agent(
    factory: Factory, *, agent_id: str, on_started: OnStarted | None = None, **options: Unpack[AgentOptions]
) -> None:
    """Serve a CrewAI agent until SIGINT or SIGTERM, and block; see :func:`serve_crew` and :func:`host_agent`."""
    return serve(host_agent(factory, agent_id=agent_id, **options), "serve_agent", on_started)


def serve_flow(
    factory: Factory, *, agent_id: str, on_started: OnStarted | None = None, **options: Unpack[AgentOptions]
) -> None:
    """Serve a flow until SIGINT or SIGTERM, and block; see :func:`serve_crew` and :func:`host_flow`."""
    return serve(host_flow(factory, agent_id=agent_id, **options), "serve_flow", on_started)


async def aserve_crew(
    factory: Factory, *, agent_id: str, on_started: OnStarted | None = None, **options: Unpack[AgentOptions]
) -> None:
    """Serve a crew until the asyncio task is canceled; see :func:`serve_crew`."""
    await host_crew(factory, agent_id=agent_id, **options).serve_forever(on_started)


async def aserve_agent(
    factory: Factory, *, agent_id: str, on_started: OnStarted | None = None, **options: Unpack[AgentOptions]
) -> None:
    """Serve a CrewAI agent until the asyncio task is canceled; see :func:`serve_agent`."""
    await host_agent(factory, agent_id=agent_id, **options).serve_forever(on_started)


async def aserve_flow(
    factory: Factory, *, agent_id: str, on_started: OnStarted | None = None, **options: Unpack[AgentOptions]
) -> None:
    """Serve a flow until the asyncio task is canceled; see :func:`serve_flow`."""
    await host_flow(factory, agent_id=agent_id, **options).serve_forever(on_started)


async def _run(requester: CrewAsker, made: Any) -> Any:
    if isinstance(made, Crew):
        return await _run_tasks(requester, made, _inputs(requester.task))
    if isinstance(made, Flow):
        return await _run_flow(requester, made)
    if isinstance(made, BaseAgent):
        return await _run_agent(requester, made)
    raise TypeError(f"the factory made a value of type {type(made).__name__}, which is no crew, flow or agent")


async def _run_agent(requester: CrewAsker, agent: BaseAgent) -> Any:
    task = requester.task
    about = task.metadata.get("crewai")
    about = about if isinstance(about, dict) else {}

    def make_crew() -> Crew:
        work = Task(
            description=prompt_of(task) or as_text(task.data),
            expected_output=str(about.get("expected_output") or "A complete answer"),
            agent=agent,
            tools=[*(agent.tools or []), *borrowed_tools(about.get("tools"), requester)],
            human_input=bool(about.get("human_input")),
        )
        return Crew(agents=[agent], tasks=[work])

    # No inputs: CrewAI would fill them into the prompt, which is no template.
    return await _run_tasks(requester, await run_for_handler(make_crew, _thread_name(task)), None)


async def _run_flow(requester: CrewAsker, flow: Flow[Any]) -> Any:
    if flow.input_provider is None:
        flow.input_provider = FlowInput(requester)
    if flow_config.hitl_provider is None:
        flow_config.hitl_provider = FlowFeedback()  # a flow that is not served still asks at the console
    inputs = _inputs(requester.task)
    task = requester.task
    if flow.persistence is not None and "id" in inputs:
        inputs["id"] = conversation_of(task, str(inputs["id"]))
    elif flow.persistence is not None:
        own_id = conversation_of(task, None)
        begun = await run_for_handler(partial(flow.persistence.load_state, own_id), _thread_name(task)) is not None
        # The stored state holds the inputs already, with all later changes.
        inputs = {"id": own_id} if begun else {**inputs, "id": own_id}

    async def kickoff() -> Any:
        output = await flow.kickoff_async(inputs)
        if isinstance(output, HumanFeedbackPending):
            raise RuntimeError(
                f"the flow paused at {output.context.method_name} for feedback, and a served flow cannot be resumed: "
                "leave out the provider of @human_feedback; then the requester is asked"
            )
        return output_value(output)

    return await _reported(requester, flow, Reporter(requester.task), kickoff)


async def _run_tasks(requester: CrewAsker, crew: Crew, inputs: dict[str, Any] | None) -> Any:
    task = requester.task
    places = Places(crew, task.saved)
    requester.tasks = crew.tasks
    for index in places.finished:
        await task.artifact(artifact_name(crew.tasks, index), output_value(crew.tasks[index].output))
    crew.stream = False

    async def kickoff() -> Any:
        restore_event_scope(())
        output = await crew.akickoff(inputs)
        assert isinstance(output, CrewOutput)
        return output_value(output)

    return await _reported(requester, crew, Reporter(task, crew, places), kickoff)


async def _reported(
    requester: CrewAsker, made: Crew | Flow[Any], reporter: Reporter, kickoff: Callable[[], Coroutine[Any, Any, Any]]
) -> Any:
    async def run() -> Any:
        # These settings are context variables, so runs at the same time do not share them.
        current_requester.set(requester)
        set_provider(HumanInput(requester))
        add_stream_sink(reporter)
        with _no_question_about_traces(made):
            return await kickoff()

    try:
        return await run_apart(run, _thread_name(requester.task))
    finally:
        reporter.close()


@contextmanager
def _no_question_about_traces(made: Crew | Flow[Any]) -> Generator[None]:
    """Let CrewAI collect traces only if the user has turned them on.

    Otherwise the first run at a terminal ends with a question, and waits 20 s for the answer. Traces that the user has
    turned on are sent where CrewAI would send them: without a login, only from a program at a terminal.
    """
    wanted = should_enable_tracing(override=made.tracing)
    set_tracing_enabled(wanted)
    set_suppress_tracing_messages(not wanted)
    with trace_consent(lambda: wanted and sys.stdin is not None and sys.stdin.isatty()):
        yield


def _thread_name(task: TaskContext) -> str:
    return f"mqtt-agent-crew-{task.id[:20]}"


def _factory(target: Any) -> Callable[..., Any]:
    """The function that makes a crew, flow or agent for each task."""
    if isinstance(target, (Crew, BaseAgent)):
        return target.copy
    if isinstance(target, Flow):
        raise TypeError("a flow can run once only: give its class, or a function that makes a new flow")
    if isinstance(target, type) and hasattr(target, "crew"):  # a class with @CrewBase
        return lambda: target().crew()
    if not callable(target) or (isinstance(target, type) and not issubclass(target, Flow)):
        raise TypeError(f"{target!r} is no crew, flow or agent, and no function that makes one")
    return target


def _made(factory: Callable[..., Any], task: TaskContext) -> Any:
    set_suppress_tracing_messages(True)  # for this thread: CrewAI collects nothing for a question after the run
    build_flow_classes()
    # A class of flows takes settings as arguments and no task.
    takes_task = not isinstance(factory, type) and inspect.signature(factory).parameters
    return factory(task) if takes_task else factory()


def _inputs(task: TaskContext) -> dict[str, Any]:
    inputs: dict[str, Any] = {}
    prompt = prompt_of(task)
    if prompt is not None:
        inputs["prompt"] = prompt
    if isinstance(task.data, dict):
        inputs.update(task.data)
    elif task.data is not None:
        inputs["data"] = task.data
    return inputs
