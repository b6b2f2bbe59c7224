"""Remote members of crews. A plain agent does the work, so that the tests can see its messages."""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from brokers import Embedded
from crewai import Agent, Crew, Process, Task
from crewai.agents.agent_builder.base_agent import BaseAgent
from crewai.events.event_bus import crewai_event_bus
from crewai.tools import BaseTool
from crewai_mqtt_agent import (
    MQTTAgent,
    MQTTToolkit,
    RemoteTaskArtifactEvent,
    RemoteTaskProgressEvent,
    RemoteTaskStatusEvent,
    RemoteTaskStreamEvent,
)
from mqtt_agent import MemoryStore, TaskContext, TaskState
from mqtt_agent import errors as mqtt_errors
from mqtt_agent.agents.store import TaskRecord
from mqtt_agent.sync import Agent as SyncAgent
from mqtt_agent.sync import ToolServer
from pydantic import BaseModel
from pydantic.json_schema import SkipJsonSchema
from support import soon, until

from .models import ScriptedLLM, last_text, run, says_calls


class Analyst(SyncAgent):
    """An agent that runs the test's function for each task, and records its tasks."""

    def __init__(self, broker: str, namespace: str) -> None:
        super().__init__("analyst", broker=broker, namespace=namespace, store=MemoryStore())
        self.given: list[TaskContext] = []
        self.canceled = threading.Event()
        self.begun = threading.Event()
        self.work: Callable[[TaskContext], Any] = self.number_them
        self.on_task(self.handle)

    async def handle(self, task: TaskContext) -> Any:
        self.given.append(task)
        self.begun.set()
        try:
            return await self.work(task)
        except asyncio.CancelledError:
            self.canceled.set()
            raise

    async def number_them(self, task: TaskContext) -> Any:
        return f"analysis {len(self.given)}"

    @staticmethod
    async def hang(task: TaskContext) -> None:
        await asyncio.Event().wait()


class Verdict(BaseModel):
    good: bool
    why: str


@pytest.fixture
def analyst(embedded: Embedded, namespace: str) -> Iterator[Analyst]:
    with Analyst(embedded.url, namespace) as agent:
        yield agent


@pytest.fixture
def member(embedded: Embedded, namespace: str, analyst: Analyst) -> Iterator[Callable[..., MQTTAgent]]:
    made: list[MQTTAgent] = []

    def make(**options: Any) -> MQTTAgent:
        settings = {"role": "analyst", "peer": "analyst", "broker": embedded.url, "namespace": namespace, **options}
        made.append(MQTTAgent(**settings))
        return made[-1]

    yield make
    for each in made:
        each.close()


def local(*turns: Any, role: str = "writer", **options: Any) -> Agent:
    return Agent(role=role, goal="write", backstory="writes", llm=ScriptedLLM.of(*turns), **options)


def task(agent: BaseAgent | None, description: str = "Analyse it", **options: Any) -> Task:
    return Task(description=description, expected_output="an analysis", agent=agent, **options)


def crew(*tasks: Task, **options: Any) -> Crew:
    agents = list({id(each.agent): each.agent for each in tasks if each.agent is not None}.values())
    return Crew(**{"agents": agents, "tasks": list(tasks), **options})


def test_a_sequential_crew_gives_context_and_takes_the_answer(
    member: Callable[..., MQTTAgent], analyst: Analyst
) -> None:
    remote, writer = member(), local("numbers: 1 2 3", lambda asked: f"Report on {'analysis 1' in last_text(asked)}")
    collect = task(writer, "Collect numbers on {topic}")
    analyse = task(remote, "Analyse {topic}", context=[collect])
    report = task(writer, "Report", context=[analyse])
    output = run(crew(collect, analyse, report), topic="rain")
    assert output.raw == "Report on True"
    [given] = analyst.given
    assert given.prompt is not None
    assert "Analyse rain" in given.prompt
    assert "numbers: 1 2 3" in given.prompt
    assert "an analysis" in given.prompt
    assert given.metadata["crewai"]["role"] == "analyst"
    assert given.data is None
    assert [each.raw for each in output.tasks_output][1] == "analysis 1"
    assert remote.last_messages[-1] == {"role": "assistant", "content": "analysis 1"}


def test_the_crews_inputs_go_along_where_that_is_wanted(member: Callable[..., MQTTAgent], analyst: Analyst) -> None:
    run(crew(task(member(send_inputs=True))), topic="rain")
    assert analyst.given[0].data == {"topic": "rain"}


def test_a_second_kickoff_is_new_work(member: Callable[..., MQTTAgent], analyst: Analyst) -> None:
    team = crew(task(member()))
    assert [run(team).raw, run(team).raw] == ["analysis 1", "analysis 2"]


@pytest.mark.parametrize("way", ["kickoff_async", "akickoff"])
async def test_it_works_in_an_event_loop(member: Callable[..., MQTTAgent], way: str) -> None:
    assert (await getattr(crew(task(member())), way)()).raw == "analysis 1"


@pytest.mark.parametrize("way", ["kickoff", "akickoff"])
async def test_async_tasks_run_side_by_side(member: Callable[..., MQTTAgent], analyst: Analyst, way: str) -> None:
    async def meet(given: TaskContext) -> str:
        await until(lambda: len(analyst.given) == 2)
        return f"did {given.title}"

    analyst.work = meet
    remote = member()
    first, second = (task(remote, f"Part {n}", async_execution=True) for n in (1, 2))
    last = task(local(last_text), "Sum up", context=[first, second])
    team = crew(first, second, last)
    output = await (asyncio.to_thread(team.kickoff) if way == "kickoff" else team.akickoff())
    assert "did Part 1" in output.raw  # type: ignore[union-attr]
    assert "did Part 2" in output.raw  # type: ignore[union-attr]


def test_a_guardrail_sends_it_back_with_its_reason(member: Callable[..., MQTTAgent], analyst: Analyst) -> None:
    def second_only(output):  # type: ignore[no-untyped-def] # CrewAI does not take annotations that are texts
        return (True, output.raw) if "2" in output.raw else (False, "too short")

    assert run(crew(task(member(), guardrail=second_only))).raw == "analysis 2"
    assert "too short" in (analyst.given[1].prompt or "")
    assert analyst.given[0].id != analyst.given[1].id


def test_kickoff_for_each_gives_each_its_own(member: Callable[..., MQTTAgent], analyst: Analyst) -> None:
    async def echo(given: TaskContext) -> str:
        return f"<{given.title}>"

    analyst.work = echo
    outputs = crew(task(member(), "Analyse {topic}")).kickoff_for_each([{"topic": "rain"}, {"topic": "snow"}])
    assert [output.raw for output in outputs] == ["<Analyse rain>", "<Analyse snow>"]  # type: ignore[union-attr]


def test_a_local_agent_delegates_to_it(member: Callable[..., MQTTAgent], analyst: Analyst) -> None:
    call = ("delegate_work_to_coworker", {"coworker": "analyst", "task": "Count", "context": "1 2 3"})
    writer = local(says_calls(call), last_text, allow_delegation=True)
    output = run(crew(task(writer), agents=[writer, member()]))
    assert output.raw == "analysis 1"
    assert "1 2 3" in (analyst.given[0].prompt or "")


def test_a_manager_gives_it_work(member: Callable[..., MQTTAgent], analyst: Analyst) -> None:
    call = ("delegate_work_to_coworker", {"coworker": "analyst", "task": "Count", "context": "1 2 3"})
    team = crew(
        task(None),
        agents=[member()],
        process=Process.hierarchical,
        manager_llm=ScriptedLLM.of(says_calls(call), last_text),
    )
    assert run(team).raw == "analysis 1"


@pytest.mark.parametrize("answer", [{"good": True, "why": "so"}, 'Here: {"good": true, "why": "so"} - done'])
@pytest.mark.parametrize("kind", ["output_pydantic", "output_json"])
def test_a_model_of_the_answer_is_sent_along_and_filled(
    member: Callable[..., MQTTAgent], analyst: Analyst, kind: str, answer: Any
) -> None:
    async def judge(given: TaskContext) -> Any:
        return answer

    analyst.work = judge
    wanted: Any = {kind: Verdict}
    output = run(crew(task(member(), **wanted)))
    made = output.pydantic if kind == "output_pydantic" else output.json_dict
    assert made == (Verdict(good=True, why="so") if kind == "output_pydantic" else {"good": True, "why": "so"})
    assert set(analyst.given[0].metadata["crewai"]["output_schema"]["properties"]) == {"good", "why"}


def test_an_answer_that_does_not_fit_is_an_error_that_says_where(member: Callable[..., MQTTAgent]) -> None:
    with pytest.raises(mqtt_errors.TaskFailed, match=r"analyst does not fit Verdict"):
        run(crew(task(member(), output_pydantic=Verdict)))


def test_a_peer_that_failed_fails_the_crew_with_its_words(member: Callable[..., MQTTAgent], analyst: Analyst) -> None:
    async def fail(given: TaskContext) -> None:
        raise ValueError("the data is gone")

    analyst.work = fail
    with pytest.raises(mqtt_errors.TaskFailed, match="the data is gone"):
        run(crew(task(member())))


def test_a_peer_that_does_not_exist_is_named_at_once(member: Callable[..., MQTTAgent]) -> None:
    with pytest.raises(mqtt_errors.PeerUnavailable, match="nobody"):
        run(crew(task(member(peer="nobody"))))


def test_what_the_peer_tells_is_on_the_bus_and_in_the_stream(
    member: Callable[..., MQTTAgent], analyst: Analyst
) -> None:
    async def tell(given: TaskContext) -> str:
        await given.progress(1, total=2, message="half")
        await given.stream("some ")
        await given.stream("words")
        await given.artifact("table", [1, 2])
        return "done"

    analyst.work = tell
    seen: dict[type, list[Any]] = {}
    with crewai_event_bus.scoped_handlers():
        for kind in (RemoteTaskProgressEvent, RemoteTaskStreamEvent, RemoteTaskArtifactEvent, RemoteTaskStatusEvent):

            @crewai_event_bus.on(kind)
            def on_event(source: Any, event: Any) -> None:
                seen.setdefault(type(event), []).append(event)

        streamed = crew(task(member()), stream=True).kickoff()
        chunks = [chunk.content for chunk in streamed]  # type: ignore[union-attr]
        crewai_event_bus.flush()
    assert chunks == ["some ", "words"]
    assert [(e.progress, e.total, e.message) for e in seen[RemoteTaskProgressEvent]] == [(1, 2, "half")]
    assert {e.content for e in seen[RemoteTaskStreamEvent]} == {"some ", "words"}
    assert [(e.name, e.data) for e in seen[RemoteTaskArtifactEvent]] == [("table", [1, 2])]
    statuses = seen[RemoteTaskStatusEvent]
    assert {"working", "completed"} <= {e.status for e in statuses}
    assert {(e.peer, e.agent_role, e.remote_task_id) for e in statuses} == {("analyst", "analyst", analyst.given[0].id)}


def test_its_questions_go_to_whoever_answers_them(member: Callable[..., MQTTAgent], analyst: Analyst) -> None:
    async def ask(given: TaskContext) -> str:
        year = await given.ask("Which year?", {"type": "integer"})
        return f"{year} and {await given.ask('Sure?')}"

    asked: list[str] = []

    def on_question(question: str, schema: Any) -> Any:
        asked.append(question)
        if schema is None:
            return "yes"
        return "no number" if len(asked) == 1 else 2024

    analyst.work = ask
    assert run(crew(task(member(on_question=on_question)))).raw == "2024 and yes"
    assert asked[0] == "Which year?"
    assert asked[1].startswith("Which year?\n(")  # the first answer was empty
    assert asked[2] == "Sure?"


def test_without_anyone_else_its_questions_go_to_the_console(
    member: Callable[..., MQTTAgent], analyst: Analyst, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def ask(given: TaskContext) -> str:
        return await given.ask("Which year?")

    analyst.work = ask
    monkeypatch.setattr("builtins.input", lambda prompt: "2024" if "Which year?" in prompt else "")
    assert run(crew(task(member()))).raw == "2024"


def test_nobody_to_ask_cancels_the_task_at_the_peer(member: Callable[..., MQTTAgent], analyst: Analyst) -> None:
    async def ask(given: TaskContext) -> str:
        return await given.ask("Which year?")

    def nobody(question: str, schema: Any) -> Any:
        raise EOFError("no console")

    analyst.work = ask
    with pytest.raises(EOFError, match="no console"):
        run(crew(task(member(on_question=nobody))))
    assert analyst.canceled.wait(10)


def test_the_peer_may_use_the_tools_it_was_given_and_so_its_coworkers(
    member: Callable[..., MQTTAgent], analyst: Analyst
) -> None:
    async def delegate(given: TaskContext) -> str:
        told = {each["name"] for each in given.metadata["crewai"]["tools"]}
        call = {
            "name": "ask_question_to_coworker",
            "arguments": {"coworker": "writer", "question": "Why?", "context": "-"},
        }
        why = await given.ask("Asking the writer", {"x-crewai-tool": call})
        unknown = await given.ask("Another", {"x-crewai-tool": {"name": "rm", "arguments": {}}})
        return json.dumps([sorted(told), why, unknown])

    analyst.work = delegate
    writer = local("Because.")
    told, why, unknown = json.loads(run(crew(task(member(allow_delegation=True)), agents=[writer, member()])).raw)
    assert "ask_question_to_coworker" in told
    assert why == "Because."
    assert "no tool 'rm'" in unknown


async def test_cancelling_the_crew_cancels_the_peer(member: Callable[..., MQTTAgent], analyst: Analyst) -> None:
    analyst.work = Analyst.hang
    running = asyncio.create_task(crew(task(member())).akickoff())
    await until(analyst.begun.is_set)
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await soon(running)
    await until(analyst.canceled.is_set)


class SlowStore(MemoryStore):
    """Stores a task at once, and says so only when it is let go: in between, the requester is giving the task."""

    def __init__(self) -> None:
        super().__init__()
        self.stored = threading.Event()
        self.go = threading.Event()

    async def add(self, record: TaskRecord) -> tuple[TaskRecord, bool]:
        added = await super().add(record)
        self.stored.set()
        await asyncio.to_thread(self.go.wait, 10)
        return added


async def test_a_crew_that_is_canceled_while_it_gives_a_task_leaves_no_work_behind(
    member: Callable[..., MQTTAgent], analyst: Analyst
) -> None:
    analyst.work = Analyst.hang
    store = SlowStore()
    remote = member(store=store)
    running = asyncio.create_task(crew(task(remote)).akickoff())
    await until(store.stored.is_set)
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await soon(running)
    store.go.set()
    given = await asyncio.to_thread(remote.requester.delegations)
    await until(lambda: [each.state for each in given] == [TaskState.CANCELED])
    assert analyst.begun.is_set() == analyst.canceled.is_set()


def test_a_member_is_canceled_from_another_thread(member: Callable[..., MQTTAgent], analyst: Analyst) -> None:
    analyst.work = Analyst.hang
    remote = member()

    def cancel() -> None:
        assert analyst.begun.wait(10)
        remote.cancel("enough")

    thread = threading.Thread(target=cancel)
    thread.start()
    with pytest.raises(mqtt_errors.TaskCanceled, match="enough"):
        run(crew(task(remote)))
    thread.join(10)


def test_what_takes_too_long_is_canceled(member: Callable[..., MQTTAgent], analyst: Analyst) -> None:
    analyst.work = Analyst.hang
    with pytest.raises(mqtt_errors.TaskTimeout, match=r"within 0\.3 s"):
        run(crew(task(member(timeout=0.3))))
    assert analyst.canceled.wait(10)


def test_members_share_one_connection_and_show_no_password(
    member: Callable[..., MQTTAgent], embedded: Embedded
) -> None:
    first, second = member(), member(role="other")
    run(crew(task(first), task(second)))
    assert first.requester is second.requester
    assert first.copy().requester is first.requester
    secret = member(broker=embedded.url.replace("//", "//user:secret@"))
    assert "secret" not in repr(secret) + secret.model_dump_json()


class Lookup(BaseTool):
    """A tool whose function has an argument that its schema does not show."""

    name: str = "lookup"
    description: str = "Looks up a topic"
    args_schema: type[BaseModel] = BaseModel

    def _run(self, topic: str = "", user: str = "guest") -> str:
        return f"{topic} for {user}"


class Hidden(BaseModel):
    topic: str
    user: SkipJsonSchema[str] = "guest"


class Nothing(BaseModel):
    pass


@pytest.mark.parametrize("schema", [Nothing, Hidden])
def test_a_lent_tool_refuses_an_argument_that_its_schema_does_not_show(
    member: Callable[..., MQTTAgent], analyst: Analyst, schema: type[BaseModel]
) -> None:
    async def intrude(given: TaskContext) -> str:
        topic = {"topic": "sleep"} if schema is Hidden else {}
        answers = [
            await given.ask("Looking", {"x-crewai-tool": {"name": "lookup", "arguments": {**topic, **more}}})
            for more in ({"user": "admin"}, {})
        ]
        return json.dumps(answers)

    analyst.work = intrude
    refused, allowed = json.loads(run(crew(task(member(), tools=[Lookup(args_schema=schema)]))).raw)
    assert refused == "Error executing tool: lookup takes no argument 'user'"
    assert allowed.endswith("for guest")


def test_a_lent_tool_may_have_arguments_with_any_name(
    member: Callable[..., MQTTAgent], analyst: Analyst, embedded: Embedded, namespace: str
) -> None:
    names = ("name", "arguments", "tool", "args", "kwargs", "self", "config", "schema", "scope", "tools", "call")

    async def call(given: TaskContext) -> str:
        wanted = {"name": "any", "arguments": {name: f"its {name}" for name in names}}
        return str(await given.ask("Calling", {"x-crewai-tool": wanted}))

    server = ToolServer("toolbox", broker=embedded.url, namespace=namespace)
    schema = {"type": "object", "properties": {name: {"type": "string"} for name in names}, "required": list(names)}

    def take(whole: dict[str, Any]) -> dict[str, Any]:
        return whole

    server.add_tool("any", take, description="Takes anything", input_schema=schema)
    analyst.work = call
    with server, MQTTToolkit(embedded.url, namespace=namespace) as toolkit:
        given = run(crew(task(member(), tools=toolkit.get_tools()))).raw
    assert json.loads(given) == {name: f"its {name}" for name in names}
