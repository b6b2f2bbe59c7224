"""Each notebook runs from top to bottom, without an API key or a server, and was committed with its outputs."""

from __future__ import annotations

import importlib.util
import os
import re
import shlex
import time
from pathlib import Path
from typing import Any

import nbformat
import pytest
from nbclient import NotebookClient

NOTEBOOKS = Path(__file__).parents[2] / "notebooks"
A_MINUTE = 60.0
SAYS = {
    "01_quickstart": [
        "{'city': 'Oslo', 'celsius': [4, 7]}",
        "InvalidArguments: forecast: argument 'days' must be",
        "Next: await client.get_tool(name) shows what the tool takes.",
        "a scripted model answers",
        "ai: Go to Lisbon",
        "{'city': 'Delhi', 'celsius': [31, 33, 32]}",
    ],
    "02_long_tasks": [
        "waits until its agent is online",
        "attempt 2",
        "{'pages': 12, 'processes': 2}",
        "{'pages': 12, 'processes': 1}",
        "waits for its agent: True",
    ],
    "03_langgraph_resume": [
        "interrupt: From which year on?",
        "SIGKILL to both",
        "research: 12 papers from 2020 on, read by 2 processes: sleep helps.",
        "a scripted model answers",
        "write: Read this, then go to bed.",
    ],
    "04_autogen_group_chat": [
        "a scripted model answers",
        "An octopus has (SIGKILL) ",
        "writer: An octopus has eight legs.\n  critic: They are arms.",
        "critic: Print it.",
    ],
    "05_crewai_remote_member": [
        "a scripted model answers",
        "SIGKILL to its process",
        "analyst: completed, attempt 2",
        "Our apples did well. The best year was 2024: 10980 euros.",
    ],
    "06_operations": [
        ", 0 of them failed",
        "30 calls after the kill: served by ['blue-2', 'green-2']",
        "pricing:red-2",
    ],
}


# CrewAI has its own venv, in which `make crewai` runs its notebook.
CREWAI = "05_crewai_remote_member"
HERE = [CREWAI] if importlib.util.find_spec("crewai") else sorted(SAYS.keys() - {CREWAI})


@pytest.fixture(params=HERE)
def name(request: pytest.FixtureRequest) -> str:
    return request.param


def read(name: str) -> Any:
    return nbformat.read(NOTEBOOKS / f"{name}.ipynb", as_version=4)  # pyright: ignore[reportUnknownMemberType]


def code_cells(notebook: Any) -> list[Any]:
    return [cell for cell in notebook.cells if cell.cell_type == "code"]


def text_of(output: Any) -> str:
    """The text that a reader sees of an output, without pictures."""
    if output.output_type == "stream":
        return output.text
    if output.output_type == "error":
        return re.sub(r"\x1b\[[0-9;]*m", "", "\n".join(output.traceback))
    return re.sub(r"<[^>]*>", " ", output.data.get("text/html", output.data.get("text/plain", "")))


def kinds_of(cell: Any) -> list[str]:
    """The kinds of a cell's outputs, independent of their text and of the number of printed pieces."""
    kinds = [output.get("name") or max(output.get("data", {output.output_type: ""})) for output in cell.outputs]
    return [kind for number, kind in enumerate(kinds) if kinds[number - 1 : number] != [kind]]


def execute(notebook: Any) -> Any:
    """Run a notebook from top to bottom, and return it."""
    for cell in code_cells(notebook):
        cell.outputs = []
    place = {"metadata": {"path": str(NOTEBOOKS)}}
    NotebookClient(notebook, timeout=A_MINUTE, coalesce_streams=True, resources=place).execute()
    return notebook


def check(name: str, notebook: Any) -> None:
    outputs = [output for cell in code_cells(notebook) for output in cell.outputs]
    assert "stderr" not in [output.get("name") for output in outputs]
    text = "\n".join(text_of(output) for output in outputs)
    for line in SAYS[name]:
        assert line in text


@pytest.mark.timeout(2 * A_MINUTE)
def test_it_runs_from_top_to_bottom_and_shows_what_it_showed(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for variable in ("OPENAI_API_KEY", "ANTHROPIC_API_KEY", "GOOGLE_API_KEY", "MQTT_AGENT_BROKER"):
        monkeypatch.delenv(variable, raising=False)
    began = time.monotonic()
    committed, notebook = read(name), execute(read(name))
    if "PYTEST_XDIST_WORKER" not in os.environ:  # otherwise parallel tests may use most of the machine
        assert time.monotonic() - began < A_MINUTE
    check(name, notebook)
    for before, now in zip(code_cells(committed), code_cells(notebook), strict=True):
        assert kinds_of(before) == kinds_of(now), now.source


def test_it_was_committed_with_its_outputs(name: str) -> None:
    committed = read(name)
    check(name, committed)
    cells = code_cells(committed)
    assert [cell.execution_count for cell in cells] == list(range(1, len(cells) + 1)), "run it again: make notebooks"
    for cell in cells:
        for output in cell.outputs:
            assert not re.search(r"/(home|root|Users)/|/tmp/h-", text_of(output)), "a path of whoever ran it"


PROVIDES = {
    "mqtt_agent": "./core[broker]",
    "langchain": "langchain",
    "langgraph": "./integrations/langchain[checkpoints]",
    "langchain_mqtt_agent": "./integrations/langchain",
    "autogen_agentchat": "./integrations/autogen",
    "autogen_mqtt_agent": "./integrations/autogen",
    "stand_in_autogen": "autogen-ext[openai]",
    "crewai": "./integrations/crewai",
    "crewai_mqtt_agent": "./integrations/crewai",
    "matplotlib": "matplotlib",
}
"""What pip must install for an import of a notebook."""


@pytest.mark.parametrize("name", SAYS)
def test_its_first_cell_says_what_to_install(name: str) -> None:
    notebook = read(name)
    [command] = re.findall(r"^pip install (.+)$", notebook.cells[0].source, re.MULTILINE)
    installed = shlex.split(command)
    code = "\n".join(cell.source for cell in code_cells(notebook))
    imported = set(re.findall(r"^(?:from|import) (\w+)", code, re.MULTILINE)) & PROVIDES.keys()
    assert "mqtt_agent" in imported
    needed = {PROVIDES[each] for each in imported}
    assert {each for each in needed if not any(word.startswith(each) for word in installed)} == set()
    assert "jupyterlab" in installed


def test_what_it_shows_needs_no_extension_of_any_front_end(name: str) -> None:
    for cell in code_cells(read(name)):
        for output in cell.outputs:
            drawn = output.get("data", {})
            assert drawn.keys() <= {"text/plain", "text/html", "image/png"}
            assert not re.search(r"<(script|style|link|iframe|img)\b|\son\w+=", drawn.get("text/html", ""))


def test_each_notebook_is_run_by_a_test() -> None:
    assert {path.stem for path in NOTEBOOKS.glob("*.ipynb")} == SAYS.keys()


def test_its_links_lead_somewhere(name: str) -> None:
    for cell in read(name).cells:
        if cell.cell_type == "markdown":
            for link in re.findall(r"\]\(([^)#]+)\)", cell.source):
                assert (NOTEBOOKS / link).exists(), link
