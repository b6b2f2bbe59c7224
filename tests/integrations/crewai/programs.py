"""The programs of the test processes: files in the folder ``GATE`` show their progress, and let them continue."""

from __future__ import annotations

import os
import re
import sys
import threading
import time
from pathlib import Path
from typing import Any

from crewai import Agent, Crew, Flow, Task
from crewai.flow import listen, persist, start
from crewai.process import Process
from crewai.project import CrewBase, agent, before_kickoff, crew, task
from crewai.tasks.conditional_task import ConditionalTask
from crewai.tools import tool
from crewai_mqtt_agent import MQTTAgent, serve_crew
from mqtt_agent import TaskContext
from pydantic import BaseModel

from .models import ScriptedLLM, last_text, run, says_calls

GATE = Path(os.environ["GATE"])


def note(what: str) -> None:
    with (GATE / "ledger").open("a") as ledger:
        ledger.write(f"{what}\n")


def report_crew(broker: str, namespace: str) -> Crew:
    """A crew with a remote analyst, and a local writer that repeats its input."""
    where = {"broker": broker, "namespace": namespace, "agent_id": "desk", "store": GATE / "desk.db"}
    analyst = MQTTAgent(role="analyst", peer="analyst", run_id="report", **where)  # type: ignore[arg-type]
    writer = Agent(role="writer", goal="g", backstory="b", llm=ScriptedLLM.of(last_text))
    analyse = Task(description="Analyse {topic}", expected_output="an analysis", agent=analyst)
    report = Task(description="Report", expected_output="a report", agent=writer, context=[analyse])
    return Crew(agents=[analyst, writer], tasks=[analyse, report])


def crew_with_a_remote_member() -> Crew:
    """A crew with a remote member; the crew's own tasks and the member's tasks are stored in files."""
    where = {"namespace": os.environ["NAMESPACE"], "agent_id": "host-crew", "store": GATE / "host-crew.db"}
    analyst = MQTTAgent(role="analyst", peer="analyst", **where)  # type: ignore[arg-type]
    return Crew(agents=[analyst], tasks=[Task(description="Analyse {topic}", expected_output="e", agent=analyst)])


def crew_of_kinds(task: TaskContext) -> Crew:
    """A crew whose tasks have the kinds that the requester names, and which notes each call of its model.

    ``data`` has ``name``; ``kinds``: ``plain``, ``async``, ``skipped``, ``taken``, ``asks`` or ``remote``; ``waits``:
    the tasks whose model waits until the gate is open; and ``process``.
    """
    name, kinds, waits = task.data["name"], task.data["kinds"], task.data.get("waits", [])

    def turn(asked: list[dict[str, Any]]) -> str:
        place = int(re.findall(rf"Part (\d+) of {name}", str(asked))[-1])
        note(f"{name} begins {place}")
        while place in waits and not (GATE / "open").exists():
            time.sleep(0.02)
        note(f"{name} ends {place}")
        return "a draft" if kinds[place] == "asks" else f"result {place}"

    def decides(place: int, whether: bool) -> Any:
        def condition(output: Any) -> bool:
            note(f"{name} decides {place}")
            return whether

        return condition

    where = {"namespace": os.environ["NAMESPACE"], "agent_id": "host-crew", "store": GATE / "host-crew.db"}
    parts: list[Task] = []
    members: list[Any] = []
    for place, kind in enumerate(kinds):
        if kind.startswith("remote"):
            member: Any = MQTTAgent(role=f"analyst {place}", peer="analyst", wait_online=True, **where)  # type: ignore
        else:  # CrewAI lets an agent do only one task at a time
            member = Agent(role=f"worker {place}", goal="g", backstory="b", llm=ScriptedLLM.of(turn))
        members.append(member)
        about: dict[str, Any] = {"description": f"Part {place} of {name}", "expected_output": "text", "agent": member}
        if kind in ("skipped", "taken"):
            parts.append(ConditionalTask(condition=decides(place, kind == "taken"), **about))
        else:
            parts.append(Task(async_execution=kind.endswith("async"), human_input=kind == "asks", **about))
    if task.data.get("process") != "hierarchical":
        return Crew(agents=members, tasks=parts)
    manager = ScriptedLLM.of(turn)
    return Crew(agents=members, tasks=parts, process=Process.hierarchical, manager_llm=manager)


def stuck_crew(task: TaskContext) -> Crew:
    """A crew that blocks for ever in its first attempt: in its model, in two tools at once, or with a time limit.

    The tools run in CrewAI's own thread pool, and so does an agent with a time limit.
    """
    where = task.data["where"]

    def block(asked: Any = None) -> str:
        note(f"{where} {task.attempt}")
        if task.attempt == 1:
            threading.Event().wait()
        return f"result {task.attempt}"

    @tool("look up")
    def look_up(word: str) -> str:
        """Look a word up."""
        return block()

    @tool("look down")
    def look_down(word: str) -> str:
        """Look a word down."""
        return block()

    turns: list[Any] = [block]
    if where == "tools":
        turns = [says_calls(("look_up", {"word": "x"}), ("look_down", {"word": "x"})), last_text]
    limit = {"max_execution_time": 600} if where == "limit" else {}
    llm = ScriptedLLM.of(*turns)
    worker = Agent(role="worker", goal="g", backstory="b", llm=llm, tools=[look_up, look_down], **limit)
    return Crew(agents=[worker], tasks=[Task(description="Work", expected_output="e", agent=worker)])


def plain_crew() -> Crew:
    """A crew of one task."""
    return crew_of_one_task(None)


def traced_crew() -> Crew:
    """A crew whose author wants traces."""
    return crew_of_one_task(True)


def crew_of_one_task(tracing: bool | None) -> Crew:
    worker = Agent(role="worker", goal="g", backstory="b", llm=ScriptedLLM.of("done"))
    work = Task(description="Work", expected_output="e", agent=worker)
    return Crew(agents=[worker], tasks=[work], tracing=tracing)


class PlainFlow(Flow[Any]):
    """A flow with a crew in its step."""

    @start()
    def first(self) -> str:
        return run(plain_crew()).raw


class StuckFlow(Flow[Any]):
    """A flow whose first step blocks for ever, until the gate is open."""

    @start()
    def first(self) -> str:
        note("flow")
        while not (GATE / "open").exists():
            time.sleep(0.02)
        return "flowed"


def crew_that_delegates() -> Crew:
    """A crew whose manager gives all work to the remote analyst."""
    where = {"namespace": os.environ["NAMESPACE"], "agent_id": "host-crew", "store": GATE / "host-crew.db"}
    analyst = MQTTAgent(role="analyst", peer="analyst", **where)  # type: ignore[arg-type]
    call = ("delegate_work_to_coworker", {"coworker": "analyst", "task": "Count", "context": "1 2 3"})
    manager = ScriptedLLM.of(says_calls(call), last_text)
    work = Task(description="Analyse {topic}", expected_output="e")
    return Crew(agents=[analyst], tasks=[work], process=Process.hierarchical, manager_llm=manager)


class Sheep(BaseModel):
    id: str = ""
    topic: str = ""
    count: int = 0


@persist()
class Counting(Flow[Sheep]):
    """A flow that renames its topic and counts; its second step waits until the gate is opened."""

    @start()
    def first(self) -> None:
        note(f"first: {self.state.topic} {self.state.count}")
        self.state.count += 1
        self.state.topic = f"{self.state.topic}, counted"

    @listen(first)
    def second(self) -> dict[str, Any]:
        note("second")
        while not (GATE / "open").exists():
            time.sleep(0.02)
        return {"topic": self.state.topic, "count": self.state.count}


@CrewBase
class Books:
    """A crew in the form of CrewAI's own templates."""

    agents_config = "config/agents.yaml"
    tasks_config = "config/tasks.yaml"

    @before_kickoff
    def ask(self, inputs: dict[str, Any]) -> dict[str, Any]:
        return {**inputs, "asker": "Ada"}

    @agent
    def clerk(self) -> Agent:
        heard = ScriptedLLM.of(lambda asked: str("clerk of sheep" in str(asked) and "sheep for Ada" in str(asked)))
        return Agent(config=self.agents_config["clerk"], llm=heard)  # type: ignore[index]

    @task
    def count(self) -> Task:
        return Task(config=self.tasks_config["count"])  # type: ignore[index]

    @crew
    def crew(self) -> Crew:
        return Crew(agents=self.agents, tasks=self.tasks)  # type: ignore[attr-defined]


def serve_stuck(what: str) -> None:
    """Serve a crew or a flow that blocks, with a short drain timeout, and note that the program went on after that."""
    factory = {"crew": stuck_crew, "flow": StuckFlow}[what]
    where = {"namespace": os.environ["NAMESPACE"], "store": GATE / "host.db"}
    serve_crew(factory, agent_id="host", drain_timeout=1, **where)  # type: ignore[arg-type]
    note("after serving")


ready_crew = plain_crew() if os.environ.get("READY") else None
"""A crew that is made while the program is imported, and is served as it is."""

if __name__ == "__main__" and sys.argv[1] == "stuck":
    serve_stuck(sys.argv[2])
elif __name__ == "__main__":
    (GATE / "report").write_text(run(report_crew(*sys.argv[1:3]), topic="rain").raw)
