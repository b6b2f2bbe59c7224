"""With a provider's key set, the notebooks use the provider's own client; the model itself is scripted here."""

from __future__ import annotations

import json

import pytest
from model_server import Calls, ModelServer, Request, last_text, results

from tests.notebooks.test_notebooks import A_MINUTE, CREWAI, HERE, code_cells, execute, read, text_of


def travel_agent(request: Request) -> str | Calls:
    """A model that calls both tools at once, as real models do and the notebooks' stand-in does not."""
    assert {tool["function"]["name"] for tool in request["tools"]} == {"forecast", "warmest"}
    found = results(request)
    if not found:
        return [("warmest", {"cities": ["Oslo", "Lisbon"]}), ("forecast", {"city": "Oslo", "days": 1})]
    warmest, forecast = found
    return f"I would go to {warmest}, for Oslo has {json.loads(forecast)['celsius'][0]} degrees."


def headline_writer(request: Request) -> str:
    return f"SLEEP HELPS, by {len(last_text(request).split())} words"


def group_chat(request: Request) -> str:
    asked = str(request["messages"][0]["content"])
    if asked.startswith("Choose an animal"):
        return "We could write about herons today."
    if asked.startswith("Say in a few words"):
        return "I would leave it as it is."
    return "A heron stands still until the fish forgets it."


def crew(request: Request) -> str:
    asked = str(request["messages"])
    if "You are accountant" in asked:
        return "In euros: 8400, 9020, 10980."
    if "You are judge" in asked:
        return "That would be 2024."
    return "Apples paid best in 2024."


CASES = {
    "01_quickstart": (travel_agent, ["ai: I would go to Lisbon, for Oslo has 4 degrees."]),
    "03_langgraph_resume": (headline_writer, ["SIGKILL to both", "write: SLEEP HELPS, by 11 words"]),
    "04_autogen_group_chat": (
        group_chat,
        [
            "planner: We could write about herons today.",
            "(SIGKILL) ",
            "writer: A heron stands still until the fish forgets it.",
            "critic: I would leave it as it is.",
        ],
    ),
    CREWAI: (
        crew,
        ["SIGKILL to its process", "analyst: completed, attempt 2", "analyst: That would be 2024.", "writer: Apples"],
    ),
}


@pytest.mark.long
@pytest.mark.timeout(2 * A_MINUTE)
@pytest.mark.parametrize("name", [name for name in CASES if name in HERE])
def test_it_uses_the_model_of_the_provider_whose_key_is_set(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    says, shown = CASES[name]
    with ModelServer(says).running(monkeypatch) as server:
        notebook = execute(read(name))
    text = "\n".join(text_of(output) for cell in code_cells(notebook) for output in cell.outputs)
    assert "OPENAI_API_KEY is set: the model is gpt-5 of openai." in text
    assert "a scripted model answers" not in text
    for line in shown:
        assert line in text
    assert {request["model"] for request in server.requests} == {"gpt-5"}
