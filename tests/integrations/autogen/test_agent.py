"""Participants on other hosts, in every kind of team."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import AsyncIterator, Callable, Sequence
from contextvars import ContextVar
from pathlib import Path
from typing import Any

import pytest
from autogen_agentchat import messages as m
from autogen_agentchat.agents import AssistantAgent, SocietyOfMindAgent
from autogen_agentchat.base import ChatAgent, Response, TaskResult, Team
from autogen_agentchat.conditions import TextMentionTermination
from autogen_agentchat.teams import (
    DiGraphBuilder,
    GraphFlow,
    MagenticOneGroupChat,
    RoundRobinGroupChat,
    SelectorGroupChat,
    Swarm,
)
from autogen_agentchat.tools import AgentTool
from autogen_core import CancellationToken, Image
from autogen_mqtt_agent import MQTTAgent
from brokers import Broker, Embedded, Mosquitto
from mqtt_agent import Agent, MemoryStore, Password, TaskContext, errors
from support import soon, until

from .conftest import red_dot
from .conversations import Counter, Gate, hosting, talker
from .models import calls, says
from .processes import HostProcess
from .test_messages import OwnEvent, Report

MakeAgent = Callable[..., MQTTAgent]

HELLO = m.TextMessage(content="hello", source="user")


@pytest.fixture
async def remote(embedded: Embedded, namespace: str) -> AsyncIterator[MakeAgent]:
    """Makes participants that run on another host."""
    made: list[MQTTAgent] = []

    def make(name: str, **options: Any) -> MQTTAgent:
        settings = {"broker": embedded.url, "namespace": namespace, "agent_id": "caller", "store": store, **options}
        made.append(MQTTAgent(name, **settings))
        return made[-1]

    store = MemoryStore()
    yield make
    for agent in made:
        await soon(agent.close())


def transcript(result: TaskResult) -> list[tuple[str, str]]:
    return [(each.source, each.to_text()) for each in result.messages if isinstance(each, m.BaseChatMessage)]


def everything(result: TaskResult) -> list[tuple[str, str, str]]:
    return [(type(each).__name__, each.source, each.to_text()) for each in result.messages]


# Every kind of team gives the same transcript with a remote participant as with a local one

Make = Callable[[str], ChatAgent]

TALK: dict[str, tuple[Any, ...]] = {
    "planner": ("plan", "plan more"),
    "writer": ("text", "more text"),
    "critic": ("good", "better"),
}


def round_robin(writer: ChatAgent) -> Team:
    return RoundRobinGroupChat([talker("planner", *TALK["planner"]), writer], max_turns=4)


def selector(writer: ChatAgent) -> Team:
    choices = says("writer", "critic", "writer")
    critic = talker("critic", *TALK["critic"])
    return SelectorGroupChat([writer, critic], choices, max_turns=3)


def graph(writer: ChatAgent) -> Team:
    planner, critic = talker("planner", "plan"), talker("critic", "good")
    builder = DiGraphBuilder()
    builder.add_node(planner).add_node(writer).add_node(critic).add_edge(planner, writer).add_edge(writer, critic)
    return GraphFlow([planner, writer, critic], builder.build())


def magentic(writer: ChatAgent) -> Team:
    def ledger(done: bool, speaker: str) -> str:
        words = {"reason": "r", "answer": "write"}
        entry = {
            "is_request_satisfied": {**words, "answer": done},
            "is_in_loop": {**words, "answer": False},
            "is_progress_being_made": {**words, "answer": True},
            "next_speaker": {**words, "answer": speaker},
            "instruction_or_question": words,
        }
        return json.dumps(entry)

    model = says("facts", "plan", ledger(False, "writer"), ledger(True, "writer"), "the end")
    return MagenticOneGroupChat([writer, talker("critic", "good")], model)


def society(writer: ChatAgent) -> Team:
    inner = RoundRobinGroupChat([talker("planner", "plan"), writer], max_turns=2)
    mind = SocietyOfMindAgent("society", inner, says("of one mind"))
    return RoundRobinGroupChat([mind, talker("critic", "good")], max_turns=2)


@pytest.mark.parametrize("make_team", [round_robin, selector, graph, magentic, society])
async def test_a_team_goes_as_if_everybody_were_here(
    make_team: Callable[[ChatAgent], Team], embedded: Embedded, namespace: str, remote: MakeAgent
) -> None:
    def writer(conversation: str = "") -> ChatAgent:
        return talker("writer", *TALK["writer"])

    local = await soon(make_team(writer()).run(task="go"))
    async with hosting(embedded.url, namespace, writer=writer):
        team = make_team(remote("writer", description="writer talks"))
        result = await soon(team.run(task="go"))
    assert everything(result) == everything(local)
    assert result.stop_reason == local.stop_reason


async def test_it_goes_on_every_broker(broker: Broker, namespace: str) -> None:
    async with hosting(broker.url, namespace, writer=lambda conversation: talker("writer", *TALK["writer"])):
        writer = MQTTAgent("writer", broker=broker.url, namespace=namespace)
        result = await soon(round_robin(writer).run(task="go"))
        assert [text for _, text in transcript(result)] == ["go", "plan", "text", "plan more", "more text"]
        await soon(writer.close())


async def test_a_swarm_hands_over_both_ways(embedded: Embedded, namespace: str, remote: MakeAgent) -> None:
    rosters: list[dict[str, str]] = []

    def there(conversation: str, roster: dict[str, str]) -> ChatAgent:
        rosters.append(roster)
        return talker("desk", calls(("transfer_to_boss", {})), handoffs=list(roster))

    boss = talker("boss", calls(("transfer_to_desk", {})), "TERMINATE", handoffs=["desk"])
    async with hosting(embedded.url, namespace, desk=there):
        desk = remote("desk", roster={"boss": "decides"})
        team = Swarm([boss, desk], termination_condition=TextMentionTermination("TERMINATE"))
        result = await soon(team.run(task="go"))
    handoffs = [(each.source, each.target) for each in result.messages if isinstance(each, m.HandoffMessage)]
    assert handoffs == [("boss", "desk"), ("desk", "boss")]
    assert transcript(result)[-1] == ("boss", "TERMINATE")
    assert rosters == [{"boss": "decides"}]


async def test_a_handoff_to_nobody_becomes_text(embedded: Embedded, namespace: str, remote: MakeAgent) -> None:
    there = lambda conversation: talker("desk", calls(("transfer_to_stranger", {})), handoffs=["stranger"])  # noqa: E731
    async with hosting(embedded.url, namespace, desk=there):
        response = await soon(remote("desk", roster=["boss"]).on_messages([HELLO], CancellationToken()))
    assert isinstance(response.chat_message, m.TextMessage)
    assert response.chat_message.metadata["mqtt_unknown_target"] == "stranger"


# Messages and events that reach the team


async def test_chunks_and_tool_events_come_through_as_they_happen(
    embedded: Embedded, namespace: str, remote: MakeAgent
) -> None:
    async def tool(x: int) -> str:
        """Double."""
        return str(2 * x)

    def there(conversation: str) -> ChatAgent:
        answers = (calls(("tool", {"x": 4})), "eight it is")
        return talker("writer", *answers, tools=[tool], reflect_on_tool_use=True, model_client_stream=True)

    async with hosting(embedded.url, namespace, writer=there):
        team = RoundRobinGroupChat([remote("author", peer="writer")], max_turns=1)
        seen = [each async for each in team.run_stream(task="go")]
    kinds = [type(each).__name__ for each in seen]
    assert kinds[1:3] == ["ToolCallRequestEvent", "ToolCallExecutionEvent"]
    chunks = [each for each in seen if isinstance(each, m.ModelClientStreamingChunkEvent)]
    assert "".join(chunk.content for chunk in chunks) == "eight it is"
    assert {each.source for each in seen[1:] if not isinstance(each, TaskResult)} == {"author"}
    assert isinstance(seen[-1], TaskResult)
    assert not any(isinstance(each, m.ModelClientStreamingChunkEvent) for each in seen[-1].messages)


async def test_registered_types_come_through_and_others_as_text(
    embedded: Embedded, namespace: str, remote: MakeAgent
) -> None:
    def there(conversation: str) -> ChatAgent:
        return talker("writer", json.dumps({"title": "T", "pages": 3}), output_content_type=Report)

    async with hosting(embedded.url, namespace, writer=there):
        knows = remote("writer", message_types=[m.StructuredMessage[Report], OwnEvent])
        result = await soon(RoundRobinGroupChat([knows], max_turns=1).run(task="go"))
        assert isinstance(result.messages[-1], m.StructuredMessage)
        assert result.messages[-1].content == Report(title="T", pages=3)
        plain = await soon(RoundRobinGroupChat([remote("writer")], max_turns=1).run(task="go"))
        assert isinstance(plain.messages[-1], m.TextMessage)
        assert json.loads(plain.messages[-1].content) == {"title": "T", "pages": 3}


async def test_an_agent_that_knows_nothing_of_autogen_can_take_part(
    embedded: Embedded, namespace: str, remote: MakeAgent
) -> None:
    agent = Agent("plain", broker=embedded.url, namespace=namespace, store=MemoryStore())

    @agent.on_task
    async def handle(task: TaskContext) -> Any:
        await task.progress(1, total=2, message="half")
        await task.stream("a chunk")
        return {"prompt": task.prompt}

    async with agent:
        seen = [each async for each in remote("plain").on_messages_stream([HELLO], CancellationToken())]
    assert [type(each).__name__ for each in seen] == ["ThoughtEvent", "ModelClientStreamingChunkEvent", "Response"]
    assert json.loads(seen[-1].chat_message.content) == {"prompt": "user: hello"}  # type: ignore[union-attr]


async def test_a_question_that_nobody_can_answer_fails_the_turn(
    embedded: Embedded, namespace: str, remote: MakeAgent
) -> None:
    async with asker(embedded.url, namespace):
        with pytest.raises(errors.TaskError, match="which year.*pass on_question= to MQTTAgent"):
            await soon(remote("asker").on_messages([HELLO], CancellationToken()))


def asker(broker: str, namespace: str) -> Agent:
    """An agent that does not use AutoGen, and asks two questions."""
    agent = Agent("asker", broker=broker, namespace=namespace, store=MemoryStore())

    @agent.on_task
    async def handle(task: TaskContext) -> Any:
        return [await task.ask("which year", {"type": "integer"}), await task.ask("why")]

    return agent


MOOD: ContextVar[str] = ContextVar("MOOD")


async def test_a_function_in_a_thread_answers_questions_while_the_team_goes_on(
    embedded: Embedded, namespace: str, remote: MakeAgent
) -> None:
    asked: list[tuple[str, Any]] = []
    loop = asyncio.get_running_loop()

    def on_question(question: str, schema: Any) -> Any:
        asked.append((question, schema))
        asyncio.run_coroutine_threadsafe(asyncio.sleep(0), loop).result(5)  # the team's event loop is free meanwhile
        return ("soon", 2024, MOOD.get())[len(asked) - 1]

    MOOD.set("for fun")
    async with asker(embedded.url, namespace):
        team = RoundRobinGroupChat([remote("asker", on_question=on_question)], max_turns=1)
        assert json.loads(transcript(await soon(team.run(task="go")))[-1][1]) == [2024, "for fun"]
    assert [question for question, _ in asked][::2] == ["which year", "why"]
    assert asked[1][0].startswith("which year\n(")  # the first answer was no integer
    assert [schema for _, schema in asked] == [{"type": "integer"}, {"type": "integer"}, None]


async def test_an_async_function_answers_questions_on_the_event_loop_of_the_team(
    embedded: Embedded, namespace: str, remote: MakeAgent
) -> None:
    loop = asyncio.get_running_loop()

    async def on_question(question: str, schema: Any) -> Any:
        assert asyncio.get_running_loop() is loop
        return 2024 if schema else "why not"

    async with asker(embedded.url, namespace):
        answer = await soon(remote("asker", on_question=on_question).on_messages([HELLO], CancellationToken()))
        assert json.loads(answer.chat_message.to_text()) == [2024, "why not"]


async def test_an_error_of_the_function_that_answers_ends_the_turn(
    embedded: Embedded, namespace: str, remote: MakeAgent
) -> None:
    def on_question(question: str, schema: Any) -> Any:
        raise LookupError("nobody is here")

    async with asker(embedded.url, namespace):
        with pytest.raises(LookupError, match="nobody is here"):
            await soon(remote("asker", on_question=on_question).on_messages([HELLO], CancellationToken()))


async def test_a_canceled_turn_ends_the_wait_for_an_answer(
    embedded: Embedded, namespace: str, remote: MakeAgent
) -> None:
    waiting, ended, token = asyncio.Event(), asyncio.Event(), CancellationToken()

    async def on_question(question: str, schema: Any) -> Any:
        waiting.set()
        try:
            await asyncio.Event().wait()
        finally:
            ended.set()

    async with asker(embedded.url, namespace):
        turn = asyncio.create_task(remote("asker", on_question=on_question).on_messages([HELLO], token))
        await soon(waiting.wait())
        token.cancel()
        with pytest.raises(asyncio.CancelledError):
            await soon(turn)
        await soon(ended.wait())


# Canceling, failing, absence


async def test_the_token_cancels_the_turn_at_its_host(embedded: Embedded, namespace: str, remote: MakeAgent) -> None:
    gates: list[Gate] = []
    async with hosting(embedded.url, namespace, counter=lambda conversation: _remember(gates, Gate())):
        counter, token = remote("counter"), CancellationToken()
        turn = asyncio.create_task(counter.on_messages([HELLO], token))
        await until(lambda: gates and gates[0].entered.is_set())
        token.cancel()
        with pytest.raises(asyncio.CancelledError):
            await soon(turn)
        await until(lambda: gates[0].told == ["canceled", "closed"])
        again = asyncio.create_task(counter.on_messages([HELLO], CancellationToken()))
        await until(lambda: len(gates) == 2 and gates[1].entered.is_set())
        gates[1].open.set()
        assert (await soon(again)).chat_message.to_text() == "1: ['hello']"


def _remember(made: list[Any], agent: Any) -> Any:
    made.append(agent)
    return agent


async def test_pause_and_resume_reach_the_agent_in_its_turn(
    embedded: Embedded, namespace: str, remote: MakeAgent
) -> None:
    gates: list[Gate] = []
    async with hosting(embedded.url, namespace, counter=lambda conversation: _remember(gates, Gate())):
        team = RoundRobinGroupChat([remote("counter")], max_turns=1)
        running = asyncio.create_task(team.run(task="go"))
        await until(lambda: gates and gates[0].entered.is_set())
        await soon(team.pause())
        await soon(team.resume())
        assert gates[0].told == ["paused", "resumed"]
        gates[0].open.set()
        assert transcript(await soon(running))[-1] == ("counter", "1: ['go']")


async def test_a_failing_agent_fails_the_team_and_the_same_turn_can_be_tried_again(
    embedded: Embedded, namespace: str, remote: MakeAgent, caplog: pytest.LogCaptureFixture
) -> None:
    failures = ["the model is down"]

    class Fails(Counter):
        async def on_messages(self, messages: Any, cancellation_token: Any) -> Any:
            if failures:
                raise RuntimeError(failures.pop())
            return await super().on_messages(messages, cancellation_token)

    async with hosting(embedded.url, namespace, counter=lambda conversation: Fails()):
        counter = remote("counter")
        with pytest.raises(errors.TaskFailed, match="the model is down"):
            await soon(counter.on_messages([HELLO], CancellationToken()))
        place = rf"{__file__}:\d+ in on_messages"
        assert re.search(rf"failed at agent \S+: RuntimeError: the model is down \(at {place}\)", caplog.text)
        assert (await soon(counter.on_messages([HELLO], CancellationToken()))).chat_message.to_text() == "1: ['hello']"
        failures.append("again")
        team = RoundRobinGroupChat([remote("counter")], max_turns=1)
        with pytest.raises(RuntimeError, match="again"):
            await soon(team.run(task="go"))
        assert transcript(await soon(team.run()))[-1] == ("counter", "1: ['go']")


async def test_an_absent_peer_is_an_error_at_once(remote: MakeAgent) -> None:
    with pytest.raises(errors.PeerUnavailable, match="never been seen.*start its host"):
        await soon(remote("counter").on_messages([HELLO], CancellationToken()), 5)
    with pytest.raises(RuntimeError, match="never been seen"):
        await soon(RoundRobinGroupChat([remote("counter")]).run(task="go"), 5)


async def test_an_absent_peer_can_be_waited_for(embedded: Embedded, namespace: str, remote: MakeAgent) -> None:
    turn = asyncio.create_task(remote("counter", absent="wait").on_messages([HELLO], CancellationToken()))
    async with hosting(embedded.url, namespace, counter=lambda conversation: Counter()):
        assert (await soon(turn)).chat_message.to_text() == "1: ['hello']"


async def test_a_notice_stands_for_an_absent_peer_which_is_told_later_what_it_missed(
    embedded: Embedded, namespace: str, remote: MakeAgent
) -> None:
    counter = remote("counter", absent="notice")
    notice = (await soon(counter.on_messages([HELLO], CancellationToken()))).chat_message
    assert isinstance(notice, m.TextMessage)
    assert "never been seen" in notice.content
    assert (notice.source, notice.metadata) == ("counter", {"mqtt_absent": "true"})
    saved = await counter.save_state()
    async with hosting(embedded.url, namespace, counter=lambda conversation: Counter()):
        other = remote("counter", absent="notice")
        await other.load_state(saved)
        later = m.TextMessage(content="later", source="user")
        answer = await soon(other.on_messages([later], CancellationToken()))
        assert answer.chat_message.to_text() == "1: ['hello', 'later']"


async def test_a_turn_that_takes_too_long_is_canceled(embedded: Embedded, namespace: str, remote: MakeAgent) -> None:
    gates: list[Gate] = []
    async with hosting(embedded.url, namespace, counter=lambda conversation: _remember(gates, Gate())):
        with pytest.raises(errors.TaskTimeout):
            await soon(remote("counter", timeout=0.5).on_messages([HELLO], CancellationToken()))
        await until(lambda: gates[0].told == ["canceled", "closed"])


async def test_a_peer_that_goes_away_in_the_middle_of_a_turn_has_a_while_to_come_back(
    embedded: Embedded, namespace: str, remote: MakeAgent
) -> None:
    gates: list[Gate] = []
    async with hosting(embedded.url, namespace, counter=lambda conversation: _remember(gates, Gate())) as hosts:
        impatient, patient = remote("counter", grace=0.2, absent="notice"), remote("counter", grace=30.0)
        turns = [asyncio.create_task(each.on_messages([HELLO], CancellationToken())) for each in (impatient, patient)]
        await until(lambda: len(gates) == 2 and all(gate.entered.is_set() for gate in gates))
        await hosts["counter"].stop()
        notice = await soon(turns[0])
        assert "has not come back" in notice.chat_message.to_text()
        await hosts["counter"].start()
        await until(lambda: any(gate.entered.is_set() for gate in gates[2:]))
        for gate in gates:
            gate.open.set()
        assert (await soon(turns[1])).chat_message.to_text() == "1: ['hello']"
        later = asyncio.create_task(impatient.on_messages([], CancellationToken()))
        await until(lambda: [gate.open.set() for gate in gates] and later.done())
        assert later.result().chat_message.to_text() == "1: ['hello']"


async def test_a_token_that_was_used_before_lets_nothing_begin(
    embedded: Embedded, namespace: str, remote: MakeAgent
) -> None:
    gates: list[Gate] = []
    async with hosting(embedded.url, namespace, counter=lambda conversation: _remember(gates, Gate())):
        token = CancellationToken()
        token.cancel()
        with pytest.raises(asyncio.CancelledError):
            await soon(remote("counter").on_messages([HELLO], token))
        await until(lambda: all(gate.told == ["canceled", "closed"] for gate in gates))


async def test_large_messages_go_both_ways(mosquitto: Mosquitto, namespace: str) -> None:
    async with hosting(mosquitto.url, namespace, counter=lambda conversation: Counter()):
        counter = MQTTAgent("counter", broker=mosquitto.url, namespace=namespace)
        large = m.TextMessage(content="x" * 3_000_000, source="user")
        answer = await soon(counter.on_messages([large], CancellationToken()), 30)
        assert len(answer.chat_message.to_text()) > 3_000_000
        await soon(counter.close())


async def test_pictures_go_both_ways(embedded: Embedded, namespace: str) -> None:
    async with hosting(embedded.url, namespace, mirror=lambda conversation: Mirror("mirror")):
        mirror = MQTTAgent("mirror", broker=embedded.url, namespace=namespace)
        shown = m.MultiModalMessage(content=["this", Image.from_base64(red_dot(400, 300))], source="user")
        team = RoundRobinGroupChat([mirror], max_turns=1)
        answer = (await soon(team.run(task=shown))).messages[-1]
        assert isinstance(answer, m.MultiModalMessage)
        picture, text = answer.content
        assert isinstance(picture, Image)
        assert picture.image.size == (400, 300)
        assert picture.image.getpixel((399, 299)) == (255, 0, 0)
        assert text == "this"
        await soon(mirror.close())


class Mirror(Counter):
    """An agent that answers with its messages in reverse order."""

    async def on_messages(self, messages: Sequence[m.BaseChatMessage], cancellation_token: CancellationToken) -> Any:
        [shown] = [each for each in messages if isinstance(each, m.MultiModalMessage)]
        return Response(chat_message=m.MultiModalMessage(content=shown.content[::-1], source=self.name))


# State


async def test_a_reset_begins_anew_without_asking_anybody(
    embedded: Embedded, namespace: str, remote: MakeAgent
) -> None:
    counter = remote("counter")
    team = RoundRobinGroupChat([counter], max_turns=1)
    async with hosting(embedded.url, namespace, counter=lambda conversation: Counter()):
        for _ in range(2):
            assert transcript(await soon(team.run(task="go")))[-1][1] == "1: ['go']"
            await soon(team.reset(), 2)
    await soon(team.reset(), 2)


async def test_a_loaded_team_goes_on_from_where_it_was_saved_also_with_the_host_restarted(
    embedded: Embedded, namespace: str, remote: MakeAgent
) -> None:
    async with hosting(embedded.url, namespace, counter=lambda conversation: Counter()) as hosts:
        team = RoundRobinGroupChat([remote("counter")], max_turns=1)
        await soon(team.run(task="one"))
        saved = json.loads(json.dumps(await team.save_state()))
        assert transcript(await soon(team.run(task="two")))[-1][1] == "2: ['one', 'two']"
        await hosts["counter"].stop()
        await hosts["counter"].start()
        other = RoundRobinGroupChat([remote("counter")], max_turns=1)
        await other.load_state(saved)
        assert transcript(await soon(other.run(task="2nd")))[-1][1] == "2: ['one', '2nd']"
        assert transcript(await soon(team.run(task="three")))[-1][1] == "3: ['one', 'two', 'three']"


async def test_the_same_question_after_a_state_of_a_turn_gets_the_answer_that_is_under_way(
    embedded: Embedded, namespace: str, remote: MakeAgent
) -> None:
    gates: list[Gate] = []
    async with hosting(embedded.url, namespace, counter=lambda conversation: _remember(gates, Gate())):
        counter, again = remote("counter"), remote("counter")
        first = asyncio.create_task(counter.on_messages([HELLO], CancellationToken()))
        await until(lambda: gates and gates[0].entered.is_set())
        await again.load_state(await counter.save_state())
        same = m.TextMessage(content="hello", source="user")
        second = asyncio.create_task(again.on_messages([same], CancellationToken()))
        gates[0].open.set()
        answers = [(await soon(each)).chat_message for each in (first, second)]
        assert answers[0].dump() == answers[1].dump()
        assert [gate.turns for gate in gates] == [1]


async def test_two_turns_at_once_are_taken_one_after_the_other(
    mosquitto: Mosquitto, namespace: str, tmp_path: Path
) -> None:
    with HostProcess("make_counter", "counter", mosquitto.url, namespace, tmp_path):
        counter = MQTTAgent("counter", broker=mosquitto.url, namespace=namespace, absent="wait")
        both = calls(("counter", {"task": "one"}), ("counter", {"task": "two"}))
        boss = AssistantAgent("boss", says(both), tools=[AgentTool(counter, return_value_as_last_message=True)])
        results = (await soon(boss.run(task="go"), 60)).messages[-2]
        assert isinstance(results, m.ToolCallExecutionEvent)
        assert [each.content for each in results.content] == ["1: ['one']", "2: ['one', 'two']"]
        last = await soon(counter.run(task="three"))
        assert last.messages[-1].to_text() == "3: ['one', 'two', 'three']"
        await soon(counter.close())


async def test_a_turn_that_waits_for_an_earlier_turn_can_be_canceled(
    embedded: Embedded, namespace: str, remote: MakeAgent
) -> None:
    gates: list[Gate] = []
    async with hosting(embedded.url, namespace, counter=lambda conversation: _remember(gates, Gate())):
        counter, token = remote("counter"), CancellationToken()
        first = asyncio.create_task(counter.run(task="one"))
        await until(lambda: gates and gates[0].entered.is_set())
        second = asyncio.create_task(counter.run(task="two", cancellation_token=token))
        third = asyncio.create_task(counter.run(task="three"))
        await asyncio.sleep(0)
        token.cancel()
        with pytest.raises(asyncio.CancelledError):
            await soon(second)
        assert not first.done()
        gates[0].open.set()
        results = await soon(asyncio.gather(first, third))
        assert [each.messages[-1].to_text() for each in results] == ["1: ['one']", "2: ['one', 'three']"]


async def test_a_state_of_something_else_is_refused(remote: MakeAgent) -> None:
    with pytest.raises(ValueError, match="no saved state of participant counter"):
        await remote("counter").load_state({"type": "AssistantAgentState"})


async def test_it_is_dumped_without_secrets_and_loads_again(namespace: str) -> None:
    agent = MQTTAgent("writer", broker="mqtt://user:secret@localhost", agent_id="dumped", namespace=namespace)
    dumped = agent.dump_component()
    assert "secret" not in dumped.model_dump_json()
    loaded = ChatAgent.load_component(dumped)
    assert isinstance(loaded, MQTTAgent)
    assert (loaded.name, loaded.peer, loaded.agent_id) == ("writer", "writer", "dumped")


def test_one_agent_id_has_one_connection_and_one_way_to_make_it(namespace: str) -> None:
    one, two = (MQTTAgent(name, agent_id="caller", namespace=namespace) for name in ("one", "two"))
    assert one._requester.agent is two._requester.agent
    with pytest.raises(ValueError, match="another store"):
        MQTTAgent("three", agent_id="caller", namespace=namespace, store="other.db")


def test_participants_with_equal_credentials_share_one_connection(namespace: str) -> None:
    def participant(name: str, password: str, **options: Any) -> MQTTAgent:
        return MQTTAgent(name, namespace=namespace, credentials=Password("ada", password), **options)

    one, two, other = participant("one", "x"), participant("two", "x"), participant("other", "y")
    assert one._requester.agent is two._requester.agent
    assert one.agent_id == two.agent_id != other.agent_id
    named = participant("one", "x", agent_id="caller")
    assert named._requester.agent is participant("two", "x", agent_id="caller")._requester.agent
    with pytest.raises(ValueError, match="other credentials"):
        participant("three", "y", agent_id="caller")
