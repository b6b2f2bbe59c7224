"""The file contents of the package crewai-files reach a peer: those of a task, and those that ``kickoff`` gets.

    .venv-crewai/bin/python -m pip install crewai-files
    .venv-crewai/bin/python -m pytest -m long tests/integrations/crewai/test_crewai_files.py

The package is not among those that ``make`` installs: with it, CrewAI takes no paths and addresses as files any more.
"""

from __future__ import annotations

import asyncio
import base64
import importlib.util
import io
from pathlib import Path
from typing import Any

import pytest
from brokers import Embedded
from crewai import Crew, Task
from crewai_mqtt_agent import MQTTAgent
from crewai_mqtt_agent.files import input_files
from mqtt_agent import Agent, MemoryStore, TaskContext
from skips import inapplicable
from support import soon

if importlib.util.find_spec("crewai_files") is None:
    inapplicable("crewai-files is not among the packages of this environment", allow_module_level=True)
files: Any = importlib.import_module("crewai_files")
pytestmark = pytest.mark.long

PNG, PDF = b"\x89PNG\r\n\x1a\n", b"%PDF-1.4"


def test_each_source_of_a_file_is_read_or_passed_on(tmp_path: Path) -> None:
    (tmp_path / "map.png").write_bytes(PNG)
    given = {
        "path": files.File(source=str(tmp_path / "map.png")),
        "bytes": files.PDFFile(source=PDF),
        "named": files.File(source=files.FileBytes(data=b"abc", filename="x.txt")),
        "stream": files.PDFFile(source=io.BytesIO(PDF)),
        "url": files.ImageFile(source=files.FileUrl(url="https://trips.example/a.png")),
    }
    read = input_files(Task(description="d", expected_output="e", input_files=given), None)
    told = [(each.name, each.mime_type, getattr(each, "data", None) or each.uri) for each in read]
    assert told == [
        ("map.png", "image/png", base64.b64encode(PNG).decode()),
        ("bytes", "application/pdf", base64.b64encode(PDF).decode()),
        ("x.txt", "text/plain", base64.b64encode(b"abc").decode()),
        ("stream", "application/pdf", base64.b64encode(PDF).decode()),
        ("url", "image/png", "https://trips.example/a.png"),
    ]


async def test_the_files_that_kickoff_gets_reach_the_peer(embedded: Embedded, namespace: str) -> None:
    given: list[TaskContext] = []
    place: dict[str, Any] = {"broker": embedded.url, "namespace": namespace}
    painter = Agent("painter", store=MemoryStore(), will_delay=1, **place)

    @painter.on_task
    async def paint(task: TaskContext) -> str:
        given.append(task)
        return "So"

    member = MQTTAgent(role="painter", peer="painter", **place)
    work = Task(description="Paint", expected_output="text", agent=member)
    crew = Crew(agents=[member], tasks=[work])
    async with painter:
        pictures = {"map": files.ImageFile(source=files.FileBytes(data=PNG, filename="map.png"))}
        output = await soon(asyncio.to_thread(crew.kickoff, input_files=pictures), 60)
    await asyncio.to_thread(member.close)
    assert str(output) == "So"
    picture = next(part for part in given[0].parts if part.kind not in ("text", "data"))
    assert (picture.decoded(), picture.media_type, picture.filename) == (PNG, "image/png", "map.png")
