"""The programs of the test processes: files in the folder ``GATE`` show their progress, and let them continue."""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path
from typing import Any

from crewai import Agent, Crew, Flow, Task
from crewai.flow import listen, persist, start
from crewai.project import CrewBase, agent, before_kickoff, crew, task
from crewai_mqtt_agent import MQTTAgent
from pydantic import BaseModel

from .models import ScriptedLLM, last_text, run

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


if __name__ == "__main__":
    (GATE / "report").write_text(run(report_crew(*sys.argv[1:3]), topic="rain").raw)
