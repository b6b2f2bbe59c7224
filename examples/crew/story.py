"""A crew of three members. One member runs in another process, and that process is killed during the member's task."""

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from crewai import Agent, Crew, CrewOutput, Task
from crewai.events.event_bus import crewai_event_bus
from crewai_mqtt_agent import MQTTAgent, MQTTToolkit, RemoteTaskArtifactEvent, RemoteTaskStatusEvent
from mqtt_agent.sync import ToolClient
from rehearsed import Rehearsed

HERE = Path(__file__).parent


class Story:
    """The crew, the process of its analyst, and the process of its tools.

    Args:
        broker: URL of the broker that all processes use.
        namespace: The prefix of all topics.
        folder: The folder for the analyst's store and ledger.
        say: Called with each line that reports what happens.
    """

    def __init__(self, broker: str, namespace: str, folder: Path, say: Callable[[str], None] = print) -> None:
        self.broker = broker
        self.namespace = namespace
        self.folder = folder
        self.say = say
        self.ledger = folder / "ledger"
        self.attempts: list[int] = []
        self._processes: list[subprocess.Popen[bytes]] = []
        self._analyst: subprocess.Popen[bytes] | None = None
        self._member = MQTTAgent(
            role="analyst", peer="analyst", broker=broker, namespace=namespace, wait_online=True
        )  # fmt: skip

    def __enter__(self) -> "Story":
        self._start("harvest_tools.py")
        self.start_analyst(pause=0)
        with ToolClient(broker=self.broker, namespace=self.namespace) as client:
            client.call("price", {"year": 2022}, wait_online=True)
        return self

    def __exit__(self, *error: object) -> None:
        self._member.close()
        for process in self._processes:
            process.kill()
            process.wait()

    def start_analyst(self, pause: float) -> None:
        """Start the analyst's host; its model waits ``pause`` seconds in the second task."""
        store = self.folder / "analyst.db"
        self._analyst = self._start("analyst_host.py", str(store), str(self.ledger), str(pause))

    def kill_analyst(self) -> None:
        """Send SIGKILL: the process has no time to send or save anything."""
        assert self._analyst is not None
        self._analyst.kill()
        self._analyst.wait()

    def run(self, *, kill: bool) -> str:
        """Run the crew; with ``kill``, kill the analyst's host between its two tasks."""
        self.attempts.clear()
        killed: list[bool] = []
        with crewai_event_bus.scoped_handlers():

            @crewai_event_bus.on(RemoteTaskStatusEvent)
            def on_status(source: Any, event: RemoteTaskStatusEvent) -> None:
                if event.status == "working" and event.attempt is not None:
                    self.attempts.append(event.attempt)
                    self.say(f"  the analyst works, attempt {event.attempt}")

            @crewai_event_bus.on(RemoteTaskArtifactEvent)
            def on_artifact(source: Any, event: RemoteTaskArtifactEvent) -> None:
                self.say(f"  the analyst has finished its task {event.name!r}")
                if kill and event.name == "incomes" and not killed:
                    killed.append(True)
                    self.say("  the analyst's host gets SIGKILL, and a new process is started")
                    self.kill_analyst()
                    self.start_analyst(pause=0)

            with MQTTToolkit(self.broker, namespace=self.namespace) as toolkit:
                output = self._crew(toolkit).kickoff()
            crewai_event_bus.flush()
        assert isinstance(output, CrewOutput)
        return output.raw

    def _crew(self, toolkit: MQTTToolkit) -> Crew:
        collector = Agent(
            role="collector",
            goal="Collect numbers",
            backstory="Diligent.",
            tools=toolkit.get_tools(),
            llm=_plays("collector"),
        )
        analyst = self._member
        writer = Agent(role="writer", goal="Write", backstory="Brief.", llm=_plays("writer"))
        collect = Task(description="Collect harvests and prices", expected_output="numbers", agent=collector)
        analyse = Task(description="Say what they mean", expected_output="a verdict", agent=analyst, context=[collect])
        report = Task(description="Report", expected_output="a report", agent=writer, context=[analyse])
        return Crew(agents=[collector, analyst, writer], tasks=[collect, analyse, report])

    def _start(self, program: str, *arguments: str) -> subprocess.Popen[bytes]:
        command = [sys.executable, str(HERE / program), self.broker, self.namespace, *arguments]
        process = subprocess.Popen(command, env=dict(os.environ))
        self._processes.append(process)
        return process


def _plays(part: str) -> Rehearsed:
    return Rehearsed(model="rehearsed", part=part)
