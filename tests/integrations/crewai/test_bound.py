"""CrewAI with ``bound="require"`` and exactly the rights that a roster gives: everything works."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

import pytest
from brokers.guarded import DynamicSecurity, JWTEjabberd
from crewai import Agent as CrewAgent
from crewai import Crew, Task
from crewai_mqtt_agent import MQTTAgent, MQTTToolkit, host_crew
from logins import LOGINS, denials, environment, take_logins
from mqtt_agent import MemoryStore, ToolServer
from mqtt_agent.identity import Roster
from support import require, soon

from tests.identity.framework import System, system

from .models import ScriptedLLM, last_text, says_calls

__all__ = ["system"]

EXAMPLE = Path(__file__).parents[3] / "examples" / "crew"


async def test_a_crew_uses_tools_and_has_a_member_elsewhere(system: System) -> None:
    server = ToolServer("toolbox", replica="1", **system.of("toolbox"))

    @server.tool(read_only=True)
    async def add(a: int, b: int) -> int:
        return a + b

    toolkit = MQTTToolkit(**system.of("hands", agent_id=True))

    def make_crew() -> Crew:
        calls = says_calls(("add", {"a": 1, "b": 2}))
        llm = ScriptedLLM.of(calls, last_text)
        worker = CrewAgent(role="worker", goal="add", backstory="adds", llm=llm, tools=toolkit.get_tools())
        return Crew(agents=[worker], tasks=[Task(description="Add", expected_output="a number", agent=worker)])

    host = host_crew(make_crew, agent_id="host", store=MemoryStore(), **system.of("host"))
    async with server, host, toolkit:
        about: Any = {**system.of("planner", agent_id=True), "store": MemoryStore()}
        member = MQTTAgent(role="host", peer="host", **about)
        work = Task(description="Let it be added", expected_output="a number", agent=member)
        output: Any = await soon(Crew(agents=[member], tasks=[work]).akickoff(), 60)
        assert output.raw == "3"
        member.close()


ORCHARD = """
namespace = "orchard"

[programs.crew]
kind = "agent"
delegates_to = ["analyst"]

[programs.analyst]
kind = "agent"

[programs.visitor]
kind = "client"
calls = "*"

[programs.farm]
kind = "server"
serves = ["harvest", "price"]
"""


@pytest.mark.long
@pytest.mark.timeout(240)
@pytest.mark.parametrize("kind", [DynamicSecurity, JWTEjabberd], ids=lambda kind: kind.name)
def test_the_example_works_and_its_analyst_is_killed(
    kind: type[Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    require(kind)
    monkeypatch.syspath_prepend(str(EXAMPLE))
    from story import Story

    with kind(Roster.parse(ORCHARD)) as broker:
        for name, value in environment(broker).items():
            monkeypatch.setenv(name, value)
        end = take_logins(os.environ[LOGINS])
        try:
            with Story(broker.where, "orchard", tmp_path) as story:
                assert story.run(kill=True) == "Apples. 2024 was the best year, with 10980 euros."
                assert story.attempts[:1] == [1]
        finally:
            end()
        assert denials(broker.log) == [] or kind is JWTEjabberd
    for module in ("story", "rehearsed"):
        sys.modules.pop(module, None)
