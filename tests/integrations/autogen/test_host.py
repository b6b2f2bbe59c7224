"""Hosting agents and teams: one instance for each conversation, turns in order, no data lost."""

from __future__ import annotations

import asyncio
import json
import re
import sys
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest
from autogen_agentchat import messages as m
from autogen_agentchat.agents import SocietyOfMindAgent
from autogen_agentchat.base import Team
from autogen_agentchat.teams import RoundRobinGroupChat
from autogen_agentchat.tools import AgentTool
from autogen_core import CancellationToken
from autogen_core.model_context import BufferedChatCompletionContext
from autogen_mqtt_agent import AgentHost, MQTTAgent, aserve_agent, aserve_team
from autogen_mqtt_agent.__main__ import main
from autogen_mqtt_agent.turns import TURN, Turn
from brokers import Embedded, Mosquitto
from mqtt_agent import Agent, MemoryStore, SqliteStore, errors
from mqtt_agent.adapting.states import read_state
from support import soon, until, words_in

from .conversations import Counter, Gate, hosting, talker
from .models import says
from .processes import HostProcess
from .programs import make_pair
from .test_agent import _remember


@pytest.fixture
async def planner(embedded: Embedded, namespace: str) -> AsyncIterator[Agent]:
    """An agent that gives turns to a host directly, without a team."""
    async with Agent("planner", broker=embedded.url, namespace=namespace, store=MemoryStore()) as agent:
        yield agent


@pytest.fixture
def make_spy(embedded: Embedded, namespace: str) -> Callable[..., Agent]:
    """Makes agents besides the planner."""

    def make(name: str, **options: Any) -> Agent:
        return Agent(name, **{"broker": embedded.url, "namespace": namespace, "store": MemoryStore(), **options})

    return make


def turn(conversation: str, *texts: str, previous: str | None = None) -> dict[str, Any]:
    messages = [m.TextMessage(content=text, source="user", id=f"{conversation}-{text}") for text in texts]
    encoded = [{"kind": "chat", "message": message.dump(), "text": message.content} for message in messages]
    return Turn(conversation=conversation, previous=previous, messages=encoded).model_dump()


async def take(planner: Agent, task_id: str, data: Any) -> str:
    answer = await planner.request("counter", type=TURN, task_id=task_id, data=data, wait_online=True, timeout=20)
    return answer["chat_message"]["text"]


async def test_each_conversation_has_an_instance_of_its_own(embedded: Embedded, namespace: str, planner: Agent) -> None:
    made: list[str] = []
    async with hosting(embedded.url, namespace, counter=lambda name: _remember(made, name) and Counter()) as hosts:
        assert await take(planner, "t1", turn("a", "x")) == "1: ['x']"
        assert await take(planner, "t2", turn("b", "y")) == "1: ['y']"
        assert await take(planner, "t3", turn("a", "z", previous="t1")) == "2: ['x', 'z']"
        assert made == ["bound:planner/a", "bound:planner/b"]
        assert hosts["counter"].live_conversations == 2


async def test_a_turn_that_comes_twice_is_taken_once_and_answered_twice(
    embedded: Embedded, namespace: str, planner: Agent
) -> None:
    made: list[Gate] = []
    async with hosting(embedded.url, namespace, counter=lambda name: _remember(made, Gate())):
        asked = turn("a", "x")
        first, second = (asyncio.create_task(take(planner, "t1", asked)) for _ in range(2))
        await until(lambda: made and made[0].entered.is_set())
        made[0].open.set()
        assert await soon(asyncio.gather(first, second)) == ["1: ['x']"] * 2
        await planner.stop()
        async with Agent("planner", broker=embedded.url, namespace=namespace, store=MemoryStore()) as forgetful:
            late = await soon(forgetful.resume("t1", peer="counter"))
            assert (await soon(late.result()))["chat_message"]["text"] == "1: ['x']"
        assert made[0].turns == 1


async def test_turns_of_a_conversation_run_in_order_and_others_beside_them(
    embedded: Embedded, namespace: str, planner: Agent
) -> None:
    gates: dict[str, Gate] = {}
    async with hosting(embedded.url, namespace, counter=lambda name: gates.setdefault(name, Gate())):
        first = asyncio.create_task(take(planner, "t1", turn("a", "x")))
        a, b = "bound:planner/a", "bound:planner/b"
        await until(lambda: a in gates and gates[a].entered.is_set())
        second = asyncio.create_task(take(planner, "t2", turn("a", "y", previous="t1")))
        other = asyncio.create_task(take(planner, "t3", turn("b", "z")))
        await until(lambda: b in gates and gates[b].entered.is_set())
        gates[b].open.set()
        assert await soon(other) == "1: ['z']"
        assert not second.done()
        gates[a].open.set()
        assert await soon(asyncio.gather(first, second)) == ["1: ['x']", "2: ['x', 'y']"]


async def test_conversations_beyond_the_limit_are_made_anew_from_the_store(
    embedded: Embedded, namespace: str, planner: Agent
) -> None:
    made: list[str] = []
    host = AgentHost(
        lambda name: _remember(made, name) and Counter(),
        agent_id="counter",
        broker=embedded.url,
        namespace=namespace,
        store=MemoryStore(),
        max_conversations=2,
    )
    async with host:
        for name in ("a", "b", "c"):
            await take(planner, f"{name}1", turn(name, "x"))
            assert host.live_conversations <= 2
        assert await take(planner, "a2", turn("a", "y", previous="a1")) == "2: ['x', 'y']"
        assert made == [f"bound:planner/{name}" for name in ("a", "b", "c", "a")]


async def test_a_hundred_turns_take_as_much_room_as_the_conversation_and_not_as_its_square(
    embedded: Embedded, namespace: str, planner: Agent, tmp_path: Path
) -> None:
    def make_team(conversation: str) -> Team:
        return RoundRobinGroupChat([talker("writer", *["text"] * 100)], max_turns=1)

    store = SqliteStore(tmp_path / "counter.db")
    host = AgentHost(make_team, agent_id="counter", broker=embedded.url, namespace=namespace, store=store)
    async with host:
        previous = None
        for number in range(100):
            task_id = f"t{number}"
            await take(planner, task_id, turn("a", f"{number}" + "x" * 8000, previous=previous))
            previous = task_id
        state = len(json.dumps((await read_state(host, "t99", "planner")).state))
        records = await store.find(f"{namespace}/counter", "received")
        await take(planner, "last", turn("b", "hello", previous="t70"))  # from a state that is stored as a change
        assert state > 100 * 8000
        assert len(records) == 100
        assert sum(len(json.dumps([each.task, each.saved, each.result])) for each in records) < 5 * state


async def test_what_was_seen_before_is_not_told_again(embedded: Embedded, namespace: str, planner: Agent) -> None:
    async with hosting(embedded.url, namespace, counter=lambda name: Counter()):
        await take(planner, "t1", turn("a", "x"))
        assert await take(planner, "t2", turn("a", "x", "y", previous="t1")) == "2: ['x', 'y']"


async def test_a_conversation_whose_past_is_lost_says_so(embedded: Embedded, namespace: str, planner: Agent) -> None:
    async with hosting(embedded.url, namespace, counter=lambda name: Counter()):
        with pytest.raises(errors.TaskFailed, match="reset the conversation") as lost:
            await take(planner, "t2", turn("a", "y", previous="t1"))
        assert lost.value.code == "CONVERSATION_LOST"
        with pytest.raises(errors.TaskRejected, match="no turn"):
            await take(planner, "t3", {"autogen": 9})


async def test_a_plain_task_gets_an_answer_as_text(embedded: Embedded, namespace: str, planner: Agent) -> None:
    async with hosting(embedded.url, namespace, counter=lambda name: Counter()):
        assert await soon(planner.request("counter", "x", context_id="talk")) == "1: ['x']"
        assert await soon(planner.request("counter", "y", context_id="talk")) == "2: ['x', 'y']"
        assert await soon(planner.request("counter", "z")) == "1: ['z']"


async def test_a_stranger_gets_a_conversation_of_its_own(
    embedded: Embedded, namespace: str, planner: Agent, make_spy: Callable[..., Agent]
) -> None:
    async with hosting(embedded.url, namespace, counter=lambda name: Counter()):
        assert await soon(planner.request("counter", "x", context_id="talk")) == "1: ['x']"
        assert await take(planner, "t1", turn("a", "x")) == "1: ['x']"
        async with make_spy("spy") as spy, make_spy("old-spy", bound="off") as old_spy:
            for stranger in (spy, old_spy):
                for name in ("talk", "bound:planner/talk"):
                    assert await soon(stranger.request("counter", "z", context_id=name)) == "1: ['z']"
                for name in ("a", "bound:planner/a"):
                    number = f"{stranger.agent_id}-{name.replace(chr(47), chr(45))}"
                    assert await take(stranger, number, turn(name, "z")) == "1: ['z']"
                    data = {**turn(name, "z", previous="t1"), "previous_of": "planner"}
                    with pytest.raises(errors.TaskFailed) as lost:
                        await take(stranger, f"{number}-2", data)
                    assert lost.value.code == "CONVERSATION_LOST"
        async with make_spy("planner", bound="off", store=MemoryStore()) as impostor:
            with pytest.raises(errors.TaskFailed, match="reset the conversation"):
                await take(impostor, "t9", turn("a", "z", previous="t1"))


async def test_a_saved_team_goes_on_under_another_generated_name(
    embedded: Embedded, namespace: str, make_spy: Callable[..., Agent]
) -> None:
    before, after = "autogen-0123456789ab", "autogen-ba9876543210"
    async with hosting(embedded.url, namespace, counter=lambda name: Counter()):
        async with make_spy(before) as first:
            assert await take(first, "t1", turn("a", "x")) == "1: ['x']"
        async with make_spy(after) as second:
            data = {**turn("a", "z", previous="t1"), "previous_of": before}
            assert await take(second, "t2", data) == "2: ['x', 'z']"


async def test_plain_tasks_of_a_conversation_that_come_at_once_are_taken_one_after_the_other(
    embedded: Embedded, namespace: str, planner: Agent
) -> None:
    gates: list[Gate] = []
    async with hosting(embedded.url, namespace, counter=lambda name: _remember(gates, Gate())):
        first = asyncio.create_task(planner.request("counter", "x", context_id="talk"))
        await until(lambda: gates and gates[0].entered.is_set())
        second = asyncio.create_task(planner.request("counter", "y", context_id="talk"))
        other = asyncio.create_task(planner.request("counter", "z", context_id="other"))
        await until(lambda: len(gates) == 2 and gates[1].entered.is_set())  # the second task has arrived as well
        for gate in gates:
            gate.open.set()
        assert await soon(asyncio.gather(first, second, other)) == ["1: ['x']", "2: ['x', 'y']", "1: ['z']"]


async def test_factories_may_be_async_and_must_give_agents(embedded: Embedded, namespace: str, planner: Agent) -> None:
    async def make(name: str) -> Counter:
        return Counter()

    async with hosting(embedded.url, namespace, counter=make):
        assert await take(planner, "t1", turn("a", "x")) == "1: ['x']"
    async with hosting(embedded.url, namespace, counter=lambda: "no agent"):
        with pytest.raises(errors.TaskFailed, match="ChatAgent or a Team"):
            await take(planner, "t2", turn("a", "x"))


async def test_a_hosted_team_answers_with_its_last_word(embedded: Embedded, namespace: str) -> None:
    async with hosting(embedded.url, namespace, pair=make_pair) as hosts:
        store = MemoryStore()
        pair = MQTTAgent("pair", broker=embedded.url, namespace=namespace, agent_id="caller", store=store)
        seen = [each async for each in pair.on_messages_stream([_hello()], CancellationToken())]
        assert [(each.source, each.to_text()) for each in seen[:-1]] == [("left", "l1")]  # type: ignore[union-attr]
        answer = seen[-1].chat_message  # type: ignore[union-attr]
        assert (answer.source, answer.to_text()) == ("pair", "l1")
        assert "Maximum number of messages" in answer.metadata["mqtt_stop_reason"]
        await hosts["pair"].stop()
        await hosts["pair"].start()
        again = await soon(pair.on_messages([_hello()], CancellationToken()))
        assert (again.chat_message.source, again.chat_message.to_text()) == ("pair", "r1")
        await soon(pair.close())


async def test_an_empty_turn_reaches_a_team(embedded: Embedded, namespace: str) -> None:
    async with hosting(embedded.url, namespace, pair=make_pair):
        pair = MQTTAgent("pair", broker=embedded.url, namespace=namespace)
        assert (await soon(pair.on_messages([], CancellationToken()))).chat_message.to_text() == "r1"
        await soon(pair.close())


def _hello() -> m.TextMessage:
    return m.TextMessage(content="hello", source="user")


async def test_a_hosted_society_of_mind_keeps_what_it_was_told(
    embedded: Embedded, namespace: str, planner: Agent
) -> None:
    minds: list[SocietyOfMindAgent] = []

    def make(name: str) -> SocietyOfMindAgent:
        inner = RoundRobinGroupChat([talker("left", "l1", "l2")], max_turns=1)
        return _remember(minds, SocietyOfMindAgent("counter", inner, says("m1", "m2")))

    async with hosting(embedded.url, namespace, counter=make) as hosts:
        await take(planner, "t1", turn("a", "x"))
        await hosts["counter"].stop()
        await hosts["counter"].start()
        await take(planner, "t2", turn("a", "y", previous="t1"))
    kept = await minds[1]._model_context.get_messages()
    assert [message.content for message in kept] == ["x", "y"]


async def test_serving_goes_on_until_it_is_canceled(
    embedded: Embedded, namespace: str, planner: Agent, tmp_path: Path
) -> None:
    options: Any = {"broker": embedded.url, "namespace": namespace}
    agent = aserve_agent(lambda name: Counter(), agent_id="counter", store=tmp_path / "a.db", **options)
    team = aserve_team(make_pair, agent_id="pair", store=tmp_path / "b.db", **options)
    serving = [asyncio.create_task(each) for each in (agent, team)]
    assert await take(planner, "t1", turn("a", "x")) == "1: ['x']"
    assert await soon(planner.request("pair", "go", wait_online=True)) == "l1"
    for task in serving:
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await soon(task)


async def test_a_host_that_is_killed_in_the_middle_of_a_turn_finishes_it_when_it_is_back(
    mosquitto: Mosquitto, namespace: str, tmp_path: Path
) -> None:
    host = HostProcess("make_patient_writer", "writer", mosquitto.url, namespace, tmp_path, GATE=str(tmp_path))
    writer = MQTTAgent("writer", broker=mosquitto.url, namespace=namespace, absent="wait")
    entered = tmp_path / "entered"
    with host:
        running = asyncio.create_task(writer.on_messages([_hello()], CancellationToken()))
        await until(lambda: words_in(entered), 30)
        host.kill()
        host.start()
        await until(lambda: len(words_in(entered)) == 2, 30)
        (tmp_path / "open").touch()
        assert (await soon(running)).chat_message.to_text() == "text"
        host.kill()  # between turns: the host's state is in its store
        host.start()
        more = await soon(writer.on_messages([_hello()], CancellationToken()), 30)
        assert more.chat_message.to_text() == "more text"
        assert host.stop() == 0
    await soon(writer.close())


@pytest.mark.parametrize(
    ("target", "options", "said"),
    [
        ("no_such_module:x", [], "no_such_module"),
        ("autogen_agentchat.agents:__all__", [], "a function that makes a list for each conversation"),
        ("json:dumps", ["--agent-id", "a/b"], "without '/'"),
        ("json:dumps", ["--broker", "localhost"], "did you mean mqtt://localhost?"),
    ],
)
def test_the_command_says_what_is_wrong(
    target: str, options: list[str], said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "path", list(sys.path))
    with pytest.raises(SystemExit, match=re.escape(said)):
        main(["serve", target, "--agent-id", "writer", *options])


async def test_a_factory_that_gives_one_agent_to_two_conversations_is_refused(
    mosquitto: Mosquitto, namespace: str, tmp_path: Path
) -> None:
    with HostProcess("make_shared", "counter", mosquitto.url, namespace, tmp_path):
        one, two = (MQTTAgent("counter", broker=mosquitto.url, namespace=namespace, absent="wait") for _ in range(2))
        assert (await soon(one.run(task="mine"), 60)).messages[-1].to_text() == "1: ['mine']"
        said = r"returned the same Counter 'counter' for conversation \S+ as for conversation \S+: .*lambda"
        with pytest.raises(errors.TaskFailed, match=said):
            await soon(two.run(task="hers"))
        assert (await soon(one.run(task="again"))).messages[-1].to_text() == "2: ['mine', 'again']"
        for each in (one, two):
            await soon(each.close())


def _with_a_shared_participant() -> Callable[[str], Any]:
    shared = Counter()
    return lambda name: RoundRobinGroupChat([shared], max_turns=1)


def _with_a_shared_memory() -> Callable[[str], Any]:
    shared = BufferedChatCompletionContext(5)
    return lambda name: talker("counter", "text", model_context=shared)


def _with_a_shared_tool() -> Callable[[str], Any]:
    shared: Any = AgentTool(Counter("helper"))
    return lambda name: talker("counter", "text", tools=[shared])


def _with_a_shared_inner_team() -> Callable[[str], Any]:
    shared = RoundRobinGroupChat([Counter()], max_turns=1)
    return lambda name: SocietyOfMindAgent("counter", shared, says("text"))


@pytest.mark.parametrize(
    ("factory", "part"),
    [
        (_with_a_shared_participant(), "Counter 'counter' inside a new RoundRobinGroupChat"),
        (_with_a_shared_memory(), "BufferedChatCompletionContext inside a new AssistantAgent"),
        (_with_a_shared_tool(), "Counter 'helper' inside a new AssistantAgent"),
        (_with_a_shared_inner_team(), "RoundRobinGroupChat .* inside a new SocietyOfMindAgent"),
    ],
)
async def test_a_part_of_an_agent_that_remembers_may_not_be_shared(
    factory: Callable[[str], Any], part: str, embedded: Embedded, namespace: str, planner: Agent
) -> None:
    async with hosting(embedded.url, namespace, counter=factory):
        await take(planner, "t1", turn("a", "x"))
        with pytest.raises(errors.TaskFailed, match=f"returned the same {part}"):
            await take(planner, "t2", turn("b", "y"))


def test_an_agent_in_the_place_of_a_factory_is_refused_at_once() -> None:
    with pytest.raises(TypeError, match="a function that makes a Counter for each conversation"):
        AgentHost(Counter(), agent_id="writer")  # type: ignore[arg-type]
