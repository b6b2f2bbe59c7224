"""Names of version 0.1 that have changed: each works for one more version, with a warning that says the new name."""

from __future__ import annotations

import importlib

import mqtt_agent.sync
import pytest
from mqtt_agent import Agent, MemoryStore, ToolClient
from mqtt_agent.deprecation import renamed_arguments

CLASSES = [
    ("mqtt_agent.errors", "CallCancelled", "CallCanceled"),
    ("mqtt_agent.errors", "NotAuthorized", "TopicNotAuthorized"),
    ("mqtt_agent.errors", "ToolCallError", "CallError"),
    ("mqtt_agent.errors", "Unauthorized", "CallerNotAuthorized"),
    ("mqtt_agent.wire", "CallError", "CallFault"),
]


@pytest.mark.parametrize(("module", "old", "new"), CLASSES)
def test_a_class_can_be_had_under_its_old_name(module: str, old: str, new: str) -> None:
    found = importlib.import_module(module)
    with pytest.warns(DeprecationWarning, match=rf"{module}\.{old} is called {module}\.{new} now") as caught:
        assert getattr(found, old) is getattr(found, new)
    assert caught[0].filename == __file__
    assert old not in found.__all__


def test_a_name_that_a_module_never_had_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="no attribute 'Nothing'"):
        _ = mqtt_agent.errors.Nothing  # pyright: ignore[reportAttributeAccessIssue]


@pytest.mark.parametrize("client", [ToolClient, mqtt_agent.sync.ToolClient])
def test_a_tool_client_takes_and_tells_its_id_under_the_old_name(client: type[ToolClient]) -> None:
    with pytest.warns(DeprecationWarning, match="name= is called agent_id= now") as caught:
        made = client(name="agent-a")  # pyright: ignore[reportCallIssue]
    assert made.agent_id == "agent-a"
    assert caught[0].filename == __file__, "the warning names the user's line, not one of this package"
    with pytest.warns(DeprecationWarning, match=r"ToolClient\.name is called ToolClient\.agent_id now") as caught:
        assert made.name == "agent-a"
    assert caught[0].filename == __file__


@pytest.mark.parametrize("agent", [Agent, mqtt_agent.sync.Agent])
def test_an_agent_takes_its_concurrency_under_the_old_name(agent: type[Agent]) -> None:
    with pytest.warns(DeprecationWarning, match="max_concurrent_tasks= is called max_concurrency= now"):
        agent("writer", store=MemoryStore(), max_concurrent_tasks=2)  # pyright: ignore[reportCallIssue]


def test_an_argument_under_both_names_is_an_error() -> None:
    @renamed_arguments(old="new")
    def function(new: int = 0) -> int:
        return new

    with pytest.raises(TypeError, match="old is the old name of new"):
        function(old=1, new=2)  # pyright: ignore[reportCallIssue]
