"""Files and data pass between CrewAI's tasks and A2A's parts. What CrewAI cannot carry is named in a text."""

from __future__ import annotations

import asyncio
import base64
from pathlib import Path
from typing import Any

import pytest
from brokers import Embedded
from crewai import Agent as CrewAgent
from crewai import Crew, Task
from crewai.events.event_bus import crewai_event_bus
from crewai_mqtt_agent import MQTTAgent, host_agent
from crewai_mqtt_agent.events import RemoteTaskArtifactEvent
from crewai_mqtt_agent.files import input_files
from mqtt_agent import Agent, MemoryStore, Part, TaskContext, TaskMessage
from support import soon

from .models import ScriptedLLM, run

FILE = {"raw": "cGRm", "filename": "trip.pdf", "mediaType": "application/pdf"}


async def test_a_hosted_agent_is_told_of_the_files_and_the_data_of_a_task(embedded: Embedded, namespace: str) -> None:
    seen: list[str] = []

    def factory() -> CrewAgent:
        llm = ScriptedLLM.of(lambda asked: seen.append(str(asked)) or "done")
        return CrewAgent(role="r", goal="g", backstory="b", llm=llm)

    place: dict[str, Any] = {"broker": embedded.url, "namespace": namespace}
    asked = TaskMessage(parts=[Part.model_validate(each) for each in ({"text": "Read"}, FILE, {"data": {"n": 1}})])
    async with (
        host_agent(factory, agent_id="host", store=MemoryStore(), **place),
        Agent("planner", store=MemoryStore(), **place) as planner,
    ):
        assert await soon(planner.request("host", messages=[asked], wait_online=True), 30) == "done"
    for words in ("Read", "[file trip.pdf: application/pdf]", '{"n": 1}'):
        assert any(words.replace('"', quote) in each for each in seen for quote in ('"', '\\"'))


async def test_the_files_of_a_task_reach_the_peer_and_its_files_are_named(
    embedded: Embedded, namespace: str, tmp_path: Path
) -> None:
    given: list[TaskContext] = []
    told: list[RemoteTaskArtifactEvent] = []
    place: dict[str, Any] = {"broker": embedded.url, "namespace": namespace}

    async def paint(task: TaskContext) -> Any:
        given.append(task)
        await task.artifact("sketch", parts=[Part.model_validate(FILE)])
        return TaskMessage(role="agent", parts=[Part(text="So"), Part.model_validate(FILE)])

    painter = Agent("painter", store=MemoryStore(), will_delay=1, **place)
    painter.on_task(paint)
    (tmp_path / "map.png").write_bytes(b"png")
    files = {"map": str(tmp_path / "map.png"), "list": "https://trips.example/list.csv"}
    member = MQTTAgent(role="painter", peer="painter", **place)
    work = Task(description="Paint", expected_output="text", agent=member, input_files=files)
    async with painter:
        with crewai_event_bus.scoped_handlers():
            crewai_event_bus.on(RemoteTaskArtifactEvent)(lambda source, event: told.append(event))
            output = await soon(asyncio.to_thread(run, Crew(agents=[member], tasks=[work])), 40)
            await asyncio.to_thread(crewai_event_bus.flush)
    await asyncio.to_thread(member.close)
    text, picture, link = given[0].parts
    assert "Paint" in (text.text or "")
    assert (picture.decoded(), picture.media_type, picture.filename) == (b"png", "image/png", "map.png")
    assert link.url == "https://trips.example/list.csv"
    assert output.raw == "So\n[file trip.pdf: application/pdf]"
    assert told[0].parts == [FILE]


def test_a_value_that_is_no_file_is_an_error() -> None:
    class Bytes:
        filename, content_type = "a.pdf", "application/pdf"

        def read(self) -> bytes:
            return b"pdf"

    [file] = input_files(Task(description="d", expected_output="e", input_files={"a": Bytes()}), None)
    assert (base64.b64decode(getattr(file, "data", "")), file.name, file.mime_type) == (
        b"pdf",
        "a.pdf",
        "application/pdf",
    )
    with pytest.raises(TypeError, match="'a' has the type int, and is no file"):
        input_files(Task(description="d", expected_output="e", input_files={"a": 1}), None)
