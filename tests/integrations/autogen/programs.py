"""What the host processes of the tests serve, and the scenario's participants, here and there the same."""

from __future__ import annotations

import os
from typing import Any

from autogen_agentchat.agents import AssistantAgent
from autogen_agentchat.base import Team
from autogen_agentchat.conditions import MaxMessageTermination
from autogen_agentchat.teams import RoundRobinGroupChat
from autogen_mqtt_agent import MQTTWorkbench

from .conversations import Counter, talker
from .models import Thinks, calls, says


def make_counter(conversation: str) -> Counter:
    return Counter()


def make_pair(conversation: str) -> Team:
    ends = MaxMessageTermination(2)
    return RoundRobinGroupChat([talker("left", "l1", "l2"), talker("right", "r1", "r2")], termination_condition=ends)


def make_patient_writer(conversation: str) -> AssistantAgent:
    return AssistantAgent("writer", Thinks(["text", "more text"], os.environ.get("GATE")))


def make_planner(conversation: str = "") -> AssistantAgent:
    return AssistantAgent("planner", says("plan", "plan more"))


def make_editor(conversation: str = "") -> AssistantAgent:
    return AssistantAgent("editor", says("edited", "edited more"))


def make_researcher(conversation: str = "", gate: str | None = None) -> AssistantAgent:
    """It calls a remote tool and says what it found; the gate is between the two."""
    answers: list[Any] = [calls(("add", {"a": 2, "b": 3})), "it is 5", calls(("greet", {"name": "Ada"})), "she says so"]
    workbench = MQTTWorkbench(os.environ["TOOLS_BROKER"], "researcher-tools", namespace=os.environ["TOOLS_NAMESPACE"])
    model = Thinks(answers, gate or os.environ.get("GATE"), at=2)
    return AssistantAgent("researcher", model, workbench=workbench, max_tool_iterations=3)


def make_critic(conversation: str = "", gate: str | None = None) -> AssistantAgent:
    return AssistantAgent("critic", Thinks(["good", "better"], gate or os.environ.get("GATE")))
