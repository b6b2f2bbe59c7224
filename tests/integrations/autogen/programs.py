"""The agents that the host processes of the tests serve, and the scenario's participants, both local and remote."""

from __future__ import annotations

import ast
import asyncio
import json
import os
import sys
from collections.abc import AsyncGenerator, Sequence
from pathlib import Path
from typing import Any

from autogen_agentchat.agents import AssistantAgent
from autogen_agentchat.base import Response, Team
from autogen_agentchat.conditions import MaxMessageTermination, TextMentionTermination
from autogen_agentchat.messages import BaseAgentEvent, BaseChatMessage, ThoughtEvent
from autogen_agentchat.teams import DiGraphBuilder, GraphFlow, RoundRobinGroupChat
from autogen_agentchat.tools import AgentTool
from autogen_core import CancellationToken
from autogen_mqtt_agent import MQTTAgent, MQTTWorkbench, resume_team

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
    """An agent that calls a remote tool and reports its result; the gate is between these two steps."""
    answers: list[Any] = [calls(("add", {"a": 2, "b": 3})), "it is 5", calls(("greet", {"name": "Ada"})), "she says so"]
    workbench = MQTTWorkbench(os.environ["TOOLS_BROKER"], "researcher-tools", namespace=os.environ["TOOLS_NAMESPACE"])
    model = Thinks(answers, gate or os.environ.get("GATE"), at=2)
    return AssistantAgent("researcher", model, workbench=workbench, max_tool_iterations=3)


def make_critic(conversation: str = "", gate: str | None = None) -> AssistantAgent:
    return AssistantAgent("critic", Thinks(["good", "better"], gate or os.environ.get("GATE")))


SHARED = Counter()


def make_shared(conversation: str) -> Counter:
    return SHARED


def make_office(conversation: str) -> Team:
    """A team whose only participant is a clerk on another host. The team asks the clerk once for each turn."""
    return RoundRobinGroupChat([_remote_clerk()], max_turns=1)


def make_boss(conversation: str) -> AssistantAgent:
    """An agent that has the clerk as a tool, and uses it in each turn."""
    model = Thinks([calls(("clerk", {"task": words})) for words in ("book a room", "thanks", "book again")])
    return AssistantAgent("boss", model, tools=[AgentTool(_remote_clerk(), return_value_as_last_message=True)])


def _remote_clerk() -> MQTTAgent:
    return MQTTAgent(
        "clerk",
        broker=os.environ["BROKER"],
        namespace=os.environ["NAMESPACE"],
        agent_id="office-asks",
        store=os.environ["STORE"],
        absent="wait",
    )


class Marathon(Counter):
    """A slow counter that uses files in the folder ``GATE``: it makes ``entered``, is silent until ``watched`` exists,
    then reports its progress, and ends when ``open`` exists."""

    async def on_messages_stream(
        self, messages: Sequence[BaseChatMessage], cancellation_token: CancellationToken
    ) -> AsyncGenerator[BaseAgentEvent | BaseChatMessage | Response, None]:
        gate = Path(os.environ["GATE"])
        (gate / "entered").touch()
        while not (gate / "open").exists():
            await asyncio.sleep(0.05)  # another process opens the gate by making a file
            if (gate / "watched").exists():
                yield ThoughtEvent(content="still at it", source=self.name)
        yield await self.on_messages(messages, cancellation_token)


class Clerk(Counter):
    """A counter that writes down each turn that it has taken: a line with its conversation in the file ``$BOOKINGS``.

    With ``$GATE``, a turn about a booking makes the file ``entered`` in this folder, and waits for the file ``open``.
    """

    def __init__(self, conversation: str) -> None:
        super().__init__("clerk")
        self._conversation = conversation

    async def on_messages(self, messages: Sequence[BaseChatMessage], cancellation_token: CancellationToken) -> Response:
        if "GATE" in os.environ and any("book" in message.to_text() for message in messages):
            gate = Path(os.environ["GATE"])
            (gate / "entered").touch()
            while not (gate / "open").exists():
                await asyncio.sleep(0.02)  # another process opens the gate by making a file
        with Path(os.environ["BOOKINGS"]).open("a") as bookings:
            bookings.write(f"{self._conversation}\n")
        return await super().on_messages(messages, cancellation_token)


def make_clerk(conversation: str) -> Clerk:
    return Clerk(conversation)


def make_marathon(conversation: str) -> Marathon:
    return Marathon("marathon")


def long_chat(broker: str, namespace: str, store: str, *, pool: bool = False) -> tuple[RoundRobinGroupChat, MQTTAgent]:
    """A team with a local planner, a local editor and a remote marathon agent."""
    marathon = MQTTAgent("marathon", broker=broker, namespace=namespace, agent_id="caller", store=store, pool=pool)
    ends = TextMentionTermination("edited more")
    return RoundRobinGroupChat([make_planner(), marathon, make_editor()], termination_condition=ends), marathon


def graph_chat(broker: str, namespace: str, store: str) -> GraphFlow:
    """A graph: two remote clerks, who run at the same time, and a local joiner who runs after both."""
    options: dict[str, Any] = {"broker": broker, "namespace": namespace, "agent_id": "caller", "store": store}
    left, right = (MQTTAgent(name, absent="wait", **options) for name in ("left", "right"))
    first, joiner = Counter("first"), Counter("joiner")
    builder = DiGraphBuilder()
    for node in (first, left, right, joiner):
        builder.add_node(node)
    builder.add_edge(first, left).add_edge(first, right).add_edge(left, joiner).add_edge(right, joiner)
    return GraphFlow([first, left, right, joiner], builder.build())


async def run_example(holds: str, **names: Any) -> dict[str, Any]:
    """Run an example of docs/autogen.md, word for word, within a coroutine that has defined these names."""
    from tests.test_readme import the_example  # this import loads many modules that a host does not need

    code = compile(the_example("docs/autogen.md", holds), holds, "exec", flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)
    await eval(code, names)
    return names


async def run_and_save(team: Team, state_file: Path) -> dict[str, Any]:
    """Run a team, and save its state as docs/autogen.md says. Returns the names that the example has defined."""
    new_file = state_file.with_suffix(".new")
    scope = {"asyncio": asyncio, "json": json, "team": team, "state_file": state_file, "new_file": new_file}
    return await run_example("new_file.replace", **scope)


async def one_of_a_pool(broker: str, namespace: str, store: str, state_file: Path, said_file: Path) -> None:
    """Run the long chat in one of several processes with one agent id, and write what was said to a file."""
    team, marathon = long_chat(broker, namespace, store, pool=True)
    if state_file.exists():
        await team.load_state(json.loads(state_file.read_text()))
        result = await resume_team(team)
    else:
        result = (await run_and_save(team, state_file))["running"].result()
    said = [(each.source, each.to_text()) for each in result.messages if isinstance(each, BaseChatMessage)]
    await marathon.close()
    said_file.write_text(json.dumps(said))


async def main(broker: str, namespace: str, store: str, state_file: str, kind: str = "long", said: str = "") -> None:
    if kind == "pool":
        await one_of_a_pool(broker, namespace, store, Path(state_file), Path(said))
        return
    team = graph_chat(broker, namespace, store) if kind == "graph" else long_chat(broker, namespace, store)[0]
    await run_and_save(team, Path(state_file))


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
