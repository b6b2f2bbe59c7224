"""Crews, flows and agents of CrewAI that take tasks from others."""

from __future__ import annotations

import asyncio
import os
import re
import signal
import subprocess
import sys
import threading
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from brokers import Embedded, Mosquitto
from crewai import Agent as CrewAgent
from crewai import Crew, Flow, Task
from crewai.flow import human_feedback, listen, persist, start
from crewai.flow.async_feedback import HumanFeedbackPending, PendingFeedbackContext
from crewai.flow.flow_config import flow_config
from crewai.flow.persistence.sqlite import SQLiteFlowPersistence
from crewai_mqtt_agent import MQTTAgent, MQTTToolkit, host_agent, host_crew, host_flow
from crewai_mqtt_agent.__main__ import main
from crewai_mqtt_agent.asking import FlowFeedback
from forking import forked_program
from mqtt_agent import Agent, MemoryStore, TaskContext, TaskHandle, TaskState, errors
from pydantic import BaseModel
from support import soon, until

from .conftest import Toolbox
from .models import ScriptedLLM, last_text, run, says_calls
from .test_kills import IMPORTED

HERE = Path(__file__).parent


def crew_of(*turns: Any, tasks: int = 2, tools: Any = (), **options: Any) -> Crew:
    worker = CrewAgent(role="worker", goal="work", backstory="works", llm=ScriptedLLM.of(*turns), tools=list(tools))
    made = [
        Task(name=f"part {n}", description=f"Part {n} of {{topic}}", expected_output="text", agent=worker, **options)
        for n in range(1, tasks + 1)
    ]
    return Crew(agents=[worker], tasks=made)


@pytest.fixture
async def planner(embedded: Embedded, namespace: str) -> AsyncIterator[Agent]:
    async with Agent("planner", broker=embedded.url, namespace=namespace, store=MemoryStore()) as agent:
        yield agent


@pytest.fixture
def where(embedded: Embedded, namespace: str) -> dict[str, Any]:
    return {"broker": embedded.url, "namespace": namespace, "agent_id": "host", "store": MemoryStore()}


async def events_of(handle: TaskHandle) -> list[Any]:
    return [event async for event in handle.events()]


async def test_a_crew_takes_its_inputs_from_the_data(planner: Agent, where: dict[str, Any]) -> None:
    async with host_crew(lambda: crew_of(lambda asked: f"on {'rain' in str(asked)}"), **where):
        handle = await soon(planner.delegate("host", "go", data={"topic": "rain"}, wait_online=True))
        assert await soon(handle.result(), 30) == "on True"
        assert handle.response is not None
        made = [{"name": name, "data": "on True"} for name in ("part 1", "part 2")]
        assert handle.response.artifacts == made


async def test_a_crew_takes_its_input_from_the_prompt(planner: Agent, where: dict[str, Any]) -> None:
    def factory(task: TaskContext) -> Crew:
        worker = CrewAgent(role="r", goal="g", backstory="b", llm=ScriptedLLM.of(lambda a: str("about snow" in str(a))))
        work = Task(description=f"Attempt {task.attempt}: {{prompt}}", expected_output="text", agent=worker)
        return Crew(agents=[worker], tasks=[work])

    async with host_crew(factory, **where):
        assert await soon(planner.request("host", "about snow", wait_online=True, timeout=30), 30) == "True"


async def test_a_model_of_the_output_is_the_result(planner: Agent, where: dict[str, Any]) -> None:
    class Verdict(BaseModel):
        good: bool

    async with host_crew(lambda: crew_of('{"good": true}', tasks=1, output_pydantic=Verdict), **where):
        assert await soon(planner.request("host", "go", data={"topic": "x"}, wait_online=True), 30) == {"good": True}


async def test_it_tells_what_it_does(
    planner: Agent, where: dict[str, Any], toolkit: MQTTToolkit, toolbox: Toolbox
) -> None:
    tools = await toolkit.aget_tools()
    async with host_crew(lambda: crew_of(says_calls(("add", {"a": 1, "b": 2})), last_text, tools=tools), **where):
        handle = await soon(planner.delegate("host", data={"topic": "x"}, wait_online=True))
        events = await soon(events_of(handle), 30)
    assert [(event.progress, event.total, event.content) for event in events if event.type == "progress"] == [
        (0, 2, "task: part 1"),
        (0, 2, "tool: add"),
        (1, 2, "done: part 1"),
        (1, 2, "task: part 2"),
        (2, 2, "done: part 2"),
    ]
    first = next(event for event in events if event.type == "artifact")
    assert (first.content, first.data) == ("part 1", '{"sum": 3}')


async def test_requests_at_the_same_time_do_not_mix(planner: Agent, where: dict[str, Any]) -> None:
    together = threading.Barrier(3)

    def turn(asked: list[Any]) -> str:
        together.wait(20)
        return next(word for word in ("rain", "snow", "wind") if word in str(asked))

    async with host_crew(lambda: crew_of(turn, tasks=1), **where):
        requests = [
            planner.request("host", data={"topic": topic}, wait_online=True) for topic in ("rain", "snow", "wind")
        ]
        assert await soon(asyncio.gather(*requests), 40) == ["rain", "snow", "wind"]


async def test_cancelling_the_task_stops_the_crew(planner: Agent, where: dict[str, Any]) -> None:
    begun, go_on, turns = threading.Event(), threading.Event(), [0]

    def turn(asked: list[Any]) -> str:
        turns[0] += 1
        begun.set()
        go_on.wait(20)  # CrewAI calls language models in threads, which cannot be stopped
        return "x"

    async with host_crew(lambda: crew_of(turn), **where) as host:
        handle = await soon(planner.delegate("host", "go", data={"topic": "x"}, wait_online=True))
        await until(begun.is_set, 30)
        await handle.cancel("enough")
        with pytest.raises(errors.TaskCanceled, match="enough"):
            await soon(handle.result())
        await until(lambda: host.running_tasks == 0)
        go_on.set()
        await until(lambda: not any(thread.name.startswith("mqtt-agent-crew") for thread in threading.enumerate()))
    assert turns == [1]


async def test_a_crew_that_fails_fails_the_task(
    planner: Agent, where: dict[str, Any], caplog: pytest.LogCaptureFixture
) -> None:
    async with host_crew(lambda: crew_of("x"), **where):
        with pytest.raises(errors.TaskFailed, match="topic"):
            await soon(planner.request("host", "no topic", wait_online=True), 30)
    assert re.search(r"failed at agent host: ValueError: .*topic.*\(at \S+:\d+ in \w+\)", caplog.text)


async def test_a_flow_that_fails_is_seen_on_its_hosts_console(
    planner: Agent, where: dict[str, Any], caplog: pytest.LogCaptureFixture
) -> None:
    class Broken(Flow[Any]):
        @start()
        def break_down(self) -> None:
            raise KeyError("ink")

    async with host_flow(Broken, **where):
        with pytest.raises(errors.TaskFailed, match="ink"):
            await soon(planner.request("host", "go", wait_online=True), 30)
    assert re.search(rf"failed at agent host: KeyError: 'ink' \(at {__file__}:\d+ in break_down\)", caplog.text)


async def test_what_a_person_is_asked_is_asked_of_the_requester(planner: Agent, where: dict[str, Any]) -> None:
    def turn(asked: list[Any]) -> str:
        return "long" if "longer" in str(asked) else "short"

    async with host_crew(lambda: crew_of(turn, tasks=1, human_input=True), **where):
        handle = await soon(planner.delegate("host", data={"topic": "x"}, wait_online=True))
        questions: list[str] = []

        async def answer() -> None:
            async for event in handle.events():
                if event.status == TaskState.INPUT_REQUIRED:
                    questions.append(event.content or "")
                    await handle.send("longer" if len(questions) == 1 else "")

        await soon(answer(), 30)
        assert await handle.result() == "long"
    assert [question.splitlines()[0] for question in questions] == ["short", "long"]


async def test_a_single_agent_does_what_the_prompt_says(planner: Agent, where: dict[str, Any]) -> None:
    def factory() -> CrewAgent:
        return CrewAgent(role="r", goal="g", backstory="b", llm=ScriptedLLM.of(lambda asked: str("{x}" in str(asked))))

    async with host_agent(factory, **where):
        assert await soon(planner.request("host", "What is {x}?", wait_online=True), 30) == "True"


async def test_a_remote_member_asks_its_person_and_works_with_its_coworkers(where: dict[str, Any]) -> None:
    """A local crew with a hosted analyst: the analyst asks the writer, and the local user asks for another answer."""

    def analyst() -> CrewAgent:
        ask = ("ask_question_to_coworker", {"coworker": "writer", "question": "Why?", "context": "-"})
        llm = ScriptedLLM.of(says_calls(ask), last_text, lambda asked: f"at length: {'longer' in str(asked)}")
        return CrewAgent(role="analyst", goal="g", backstory="b", llm=llm)

    wishes = iter(["longer", ""])
    heard: list[str] = []

    def on_question(question: str, schema: Any) -> str:
        heard.append(question.splitlines()[0])
        return next(wishes)

    writer = CrewAgent(role="writer", goal="g", backstory="b", llm=ScriptedLLM.of("Because."))
    member = MQTTAgent(
        role="analyst", peer="host", broker=where["broker"], namespace=where["namespace"],
        allow_delegation=True, on_question=on_question,
    )  # fmt: skip
    task = Task(description="Analyse", expected_output="text", agent=member, human_input=True)
    async with host_agent(analyst, **where):
        output = await soon(asyncio.to_thread(run, Crew(agents=[member, writer], tasks=[task])), 40)
    await asyncio.to_thread(member.close)
    assert output.raw == "at length: True"
    assert heard == ["Because.", "at length: True"]


async def test_what_a_stopped_host_had_given_to_its_own_remote_member_is_not_given_again(
    planner: Agent, where: dict[str, Any]
) -> None:
    given: list[str] = []
    go_on = asyncio.Event()
    analyst = Agent("analyst", broker=where["broker"], namespace=where["namespace"], store=MemoryStore())

    @analyst.on_task
    async def analyse(task: TaskContext) -> str:
        given.append(task.id)
        await go_on.wait()
        return "analysed"

    members: list[MQTTAgent] = []

    def factory() -> Crew:
        settings = {"broker": where["broker"], "namespace": where["namespace"], "agent_id": "host-crew"}
        member = MQTTAgent(role="analyst", peer="analyst", wait_online=True, **settings)
        members.append(member)
        return Crew(agents=[member], tasks=[Task(description="Analyse", expected_output="e", agent=member)])

    async with analyst:
        async with host_crew(factory, drain_timeout=0.1, **where):
            handle = await soon(planner.delegate("host", "go", wait_online=True))
            await until(lambda: len(given) == 1, 30)
        async with host_crew(factory, **where):
            await until(lambda: len(members) == 2, 30)
            go_on.set()
            assert await soon(handle.result(), 30) == "analysed"
    assert len(given) == 1
    await asyncio.to_thread(members[0].close)


async def test_a_question_of_a_served_crews_own_remote_member_goes_to_the_crews_requester(
    planner: Agent, where: dict[str, Any]
) -> None:
    analyst = Agent("analyst", broker=where["broker"], namespace=where["namespace"], store=MemoryStore())

    @analyst.on_task
    async def analyse(task: TaskContext) -> str:
        return f"in {await task.ask('Which year?', {'type': 'integer'})}"

    settings = {"broker": where["broker"], "namespace": where["namespace"], "agent_id": "host-crew"}
    member = MQTTAgent(role="analyst", peer="analyst", wait_online=True, **settings)

    def factory() -> Crew:
        return Crew(agents=[member], tasks=[Task(description="Analyse", expected_output="e", agent=member)])

    async with analyst, host_crew(factory, **where):
        handle = await soon(planner.delegate("host", "go", wait_online=True))
        await until(lambda: handle.question is not None, 30)
        assert handle.question is not None
        assert handle.question.content == "Which year?"
        await handle.send(2024)
        assert await soon(handle.result(), 30) == "in 2024"
    await asyncio.to_thread(member.close)


class Count(BaseModel):
    topic: str = ""
    prompt: str = ""


class Counting(Flow[Count]):
    @start()
    def first(self) -> str:
        return f"{self.state.topic}: {self.ask('How many?')}"

    @listen(first)
    def second(self, counted: str) -> dict[str, str]:
        return {"counted": counted}


async def test_a_flow_takes_its_state_from_the_data_and_asks_the_requester(
    planner: Agent, where: dict[str, Any]
) -> None:
    async with host_flow(Counting, **where):
        handle = await soon(planner.delegate("host", data={"topic": "sheep"}, wait_online=True))
        steps: list[Any] = []

        async def answer() -> None:
            async for event in handle.events():
                if event.status == TaskState.INPUT_REQUIRED:
                    await handle.send("seven")
                if event.type == "progress":
                    steps.append(event.content)

        await soon(answer(), 30)
        assert await handle.result() == {"counted": "sheep: seven"}
    assert steps == ["step: first", "step: second"]


async def answered(handle: TaskHandle, *answers: str) -> list[str]:
    """Give these answers, one for each question, and return the questions."""
    questions: list[str] = []

    async def answer() -> None:
        async for event in handle.events():
            if event.status == TaskState.INPUT_REQUIRED:
                await handle.send(answers[len(questions)])
                questions.append(event.content or "")

    await soon(answer(), 30)
    return questions


class Reviewed(Flow[Count]):
    @start()
    @human_feedback(message="Is that right?")
    def draft(self) -> dict[str, str]:
        return {"draft": f"all about {self.state.topic}"}

    @listen(draft)
    def end(self, reviewed: Any) -> str:
        return f"{reviewed.output['draft']}: {reviewed.feedback}"


async def test_feedback_on_a_flow_is_asked_of_the_requester(planner: Agent, where: dict[str, Any]) -> None:
    async with host_flow(Reviewed, **where):
        handle = await soon(planner.delegate("host", data={"topic": "sheep"}, wait_online=True))
        assert await answered(handle, "more wool") == ['{"draft": "all about sheep"}\n\nIs that right?']
        assert await handle.result() == "all about sheep: more wool"


class Routed(Flow[Count]):
    @start()
    @human_feedback(
        message="Print it?",
        emit=["approved", "rejected"],
        llm=ScriptedLLM.of(lambda asked: "approved" if "go ahead" in str(asked) else "rejected"),
    )
    def draft(self) -> str:
        return "a draft"

    @listen("approved")
    def printed(self) -> str:
        return "printed"

    @listen("rejected")
    def thrown_away(self) -> str:
        return "thrown away"


@pytest.mark.parametrize(("said", "then"), [("go ahead", "printed"), ("no", "thrown away"), ("", "printed")])
async def test_feedback_on_a_flow_decides_how_it_goes_on(
    planner: Agent, where: dict[str, Any], said: str, then: str
) -> None:
    async with host_flow(Routed, **where):
        handle = await soon(planner.delegate("host", "go", wait_online=True))
        assert await answered(handle, said) == ["a draft\n\nPrint it?\nOutcomes: approved, rejected"]
        assert await handle.result() == then


def test_feedback_on_a_flow_that_is_not_served_is_asked_at_the_console(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("builtins.input", lambda *prompt: "typed")
    monkeypatch.setattr(flow_config, "hitl_provider", FlowFeedback())
    assert Reviewed().kickoff() == "all about : typed"


class Pausing:
    """A feedback provider whose flows must be resumed explicitly."""

    def request_feedback(self, context: PendingFeedbackContext, flow: Any) -> str:
        raise HumanFeedbackPending(context)


class Paused(Flow[Count]):
    @start()
    @human_feedback(message="?", provider=Pausing())
    def draft(self) -> str:
        return "a draft"


async def test_a_flow_that_pauses_for_a_provider_of_its_own_fails_and_says_what_to_do(
    planner: Agent, where: dict[str, Any]
) -> None:
    async with host_flow(Paused, **where):
        with pytest.raises(errors.TaskFailed, match="paused at draft.*leave out the provider"):
            await soon(planner.request("host", "go", wait_online=True), 30)


class WithACrew(Flow):
    @start()
    def work(self) -> str:
        return run(crew_of(last_wish, tasks=1, human_input=True), topic="x").raw


def last_wish(asked: list[Any]) -> str:
    return "long" if "longer" in str(asked) else "short"


async def test_a_crew_within_a_step_of_a_flow_asks_the_requester(planner: Agent, where: dict[str, Any]) -> None:
    async with host_flow(WithACrew, **where):
        handle = await soon(planner.delegate("host", "go", wait_online=True))
        questions = await answered(handle, "longer", "")
        assert [each.splitlines()[0] for each in questions] == ["short", "long"]
        assert await handle.result() == "long"


PROGRAM = """
from pathlib import Path
from crewai import Agent, Crew, Task
from tests.integrations.crewai.models import ScriptedLLM

def build(task):
    def turn(asked):
        with Path("ledger").open("a") as ledger:
            ledger.write(f"{task.attempt}\\n")
        if "Part 2" in str(asked) and task.attempt == 1:
            import time
            time.sleep(300)  # until it is killed
        return f"attempt {task.attempt}"

    worker = Agent(role="r", goal="g", backstory="b", llm=ScriptedLLM.of(turn))
    parts = [Task(name=f"part {n}", description=f"Part {n}", expected_output="e", agent=worker) for n in (1, 2)]
    return Crew(agents=[worker], tasks=parts)

scripted = ScriptedLLM.of(lambda asked: str("on rain" in str(asked)))
worker = Agent(role="r", goal="g", backstory="b", llm=scripted)
crew = Crew(agents=[worker], tasks=[Task(description="Work on {topic}", expected_output="e", agent=worker)])
"""


@pytest.mark.timeout(180)
async def test_the_command_serves_a_crew_that_goes_on_after_a_kill(
    mosquitto: Mosquitto, namespace: str, tmp_path: Path
) -> None:
    (tmp_path / "program.py").write_text(PROGRAM)

    def serve(what: str, agent_id: str) -> subprocess.Popen[str]:
        command = [sys.executable, "-m", "crewai_mqtt_agent", "serve", f"program:{what}", "--agent-id", agent_id]
        command += ["--broker", mosquitto.url, "--namespace", namespace, "--store", str(tmp_path / f"{agent_id}.db")]
        environment = {**os.environ, "PYTHONPATH": str(HERE.parents[2])}
        return forked_program(IMPORTED, command, cwd=tmp_path, env=environment, text=True)

    processes = [serve("build", "builder"), serve("crew", "ready")]
    try:
        async with Agent("planner", broker=mosquitto.url, namespace=namespace, store=MemoryStore()) as planner:
            handle = await soon(planner.delegate("builder", "go", wait_online=True))
            asked = await soon(planner.delegate("ready", data={"topic": "rain"}, wait_online=True))
            ledger = tmp_path / "ledger"
            await until(lambda: ledger.exists() and ledger.read_text().split() == ["1", "1"], 90)
            assert await soon(asked.result(), 90) == "True"
            processes[0].kill()
            processes[0].wait()
            processes.append(serve("build", "builder"))
            assert await soon(handle.result(), 90) == "attempt 2"
            assert handle.response is not None
            made = [{"name": "part 1", "data": "attempt 1"}, {"name": "part 2", "data": "attempt 2"}]
            assert handle.response.artifacts == made
            assert ledger.read_text().split() == ["1", "1", "2"]  # the first part was not done again
        for process in processes[1:]:
            process.send_signal(signal.SIGTERM)
            assert await asyncio.to_thread(process.wait, 30) == 0
    finally:
        for process in processes:
            process.kill()
            process.wait()


def test_the_command_says_what_it_cannot_serve() -> None:
    cases = [
        (["json:nothing"], "nothing"),
        (["json"], "module:name"),
        (["no_such:x"], "no_such"),
        (["builtins:dict"], "no crew"),
        (["json:dumps", "--broker", "localhost"], "did you mean mqtt://localhost"),
        (["json:dumps", "--agent-id", "a/b"], "without '/'"),
    ]
    for arguments, said in cases:
        with pytest.raises(SystemExit, match=f"{arguments[0]} cannot be served: .*{said}"):
            main(["serve", "--agent-id", "x", *arguments])


async def test_a_crew_and_an_agent_may_be_given_as_they_are(planner: Agent, where: dict[str, Any]) -> None:
    ready = crew_of(lambda asked: str("rain" in str(asked)), tasks=1)
    for host in (host_crew(ready, **where), host_agent(ready.agents[0], **where)):
        async with host:
            requests = [planner.request("host", "rain", data={"topic": "rain"}, wait_online=True) for _ in range(2)]
            assert await soon(asyncio.gather(*requests), 30) == ["True", "True"]


def test_what_cannot_be_served_is_refused_at_once(where: dict[str, Any]) -> None:
    with pytest.raises(TypeError, match="a flow can run once only: give its class"):
        host_flow(Counting(), **where)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="no crew, flow or agent"):
        host_crew("a crew", **where)  # type: ignore[arg-type]


async def test_a_stranger_does_not_continue_a_flow_with_the_id_of_anothers_state(
    embedded: Embedded, namespace: str, planner: Agent, where: dict[str, Any], tmp_path: Path
) -> None:
    class State(BaseModel):
        id: str = ""
        said: list[str] = []

    @persist(SQLiteFlowPersistence(str(tmp_path / "flows.db")))
    class Talk(Flow[State]):
        @start()
        def take(self) -> dict[str, Any]:
            self.state.said = [*self.state.said, "a word"]
            return {"id": self.state.id, "said": len(self.state.said)}

    others: dict[str, Any] = {"broker": embedded.url, "namespace": namespace}
    async with (
        host_flow(Talk, **where),
        Agent("spy", store=MemoryStore(), **others) as spy,
        Agent("old-spy", store=MemoryStore(), bound="off", **others) as old_spy,
    ):
        first = await soon(planner.request("host", data={"id": "talk"}), 30)
        own = await soon(planner.request("host"), 30)
        assert first["said"] == own["said"] == 1
        for stranger, known in ((spy, "talk"), (spy, own["id"]), (old_spy, first["id"])):
            assert (await soon(stranger.request("host", data={"id": known}), 30))["said"] == 1
        for known, said in ((first["id"], 2), (own["id"], 2)):
            assert (await soon(planner.request("host", data={"id": known}), 30))["said"] == said
