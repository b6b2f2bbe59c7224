"""Finding what a toolkit was asked for: tools by name, pattern, server, tag or function, and peers."""

from __future__ import annotations

from typing import Any

import pytest
from mqtt_agent import Agent, AgentCard, AgentSkill, TaskContext
from mqtt_agent.adapting.finding import (
    EmptyHands,
    Found,
    Selection,
    describe_peer,
    find,
    find_peers,
    find_tools,
    tell_missing,
)
from mqtt_agent.errors import ToolUnavailable
from mqtt_agent.transport.url import BrokerURL
from mqtt_agent.wire import ServerCard, Topics, encode
from support import becomes, soon, until

from tests.agents.conftest import MakeAgent
from tests.tools.conftest import MakeClient, MakeServer

WANTED: list[tuple[dict[str, Any], list[str], list[str]]] = [
    ({}, ["db_read", "git_log", "git_push"], []),
    ({"tools": ["git_push", "db_read"]}, ["git_push", "db_read"], []),
    ({"tools": ["git_*"]}, ["git_log", "git_push"], []),
    ({"tools": ["git_*", "git_log", "gone", "gone_*"]}, ["git_log", "git_push"], ["gone", "gone_*"]),
    ({"exclude": ["*_push"]}, ["db_read", "git_log"], []),
    ({"servers": ["git"]}, ["git_log", "git_push"], []),
    ({"servers": ["git"], "tools": ["db_read"]}, [], []),
    ({"tags": ["safe", "other"]}, ["git_log"], []),
    ({"where": lambda card: card.tool.startswith("db")}, ["db_read"], []),
    ({"tools": []}, [], []),
]


@pytest.mark.parametrize(("wanted", "found", "missing"), WANTED, ids=range(len(WANTED)))
async def test_a_selection_finds_what_it_says(
    make_server: MakeServer, make_client: MakeClient, wanted: dict[str, Any], found: list[str], missing: list[str]
) -> None:
    git, db = make_server("git"), make_server("db")
    git.add_tool("git_log", lambda: 1, meta={"tags": ["safe", 5]})
    git.add_tool("git_push", lambda: 1, meta={"tags": "no list"})
    db.add_tool("db_read", lambda: 1)
    await soon(git.start())
    await soon(db.start())
    client = await make_client()

    async def all_there() -> bool:
        return len(await client.list_tools()) == 3

    await becomes(all_there)
    result = await soon(find_tools(client, Selection(**wanted)))
    names = [card.tool for card in result.tools]
    assert (names if wanted.get("tools") else sorted(names), result.missing) == (found, missing)


async def test_the_tools_of_one_server_are_never_those_of_another(
    make_server: MakeServer, make_client: MakeClient, caplog: pytest.LogCaptureFixture
) -> None:
    """Both servers offer ``search``. First one of them has the name, then the other, and then both serve it."""
    github, jira = make_server("github"), make_server("jira", on_conflict="standby")
    for server in (github, jira):
        server.add_tool("search", lambda: 1)
        server.add_tool(f"{server.name}_only", lambda: 1)
        await soon(server.start())
    client = await make_client()

    async def names(server: str) -> list[str]:
        return [card.tool for card in (await find_tools(client, Selection(servers=[server]))).tools]

    async def are(found: dict[str, list[str]]) -> None:
        async def so() -> bool:
            return {server: sorted(await names(server)) for server in found} == found

        await becomes(so)

    await are({"github": ["github_only", "search"], "jira": ["jira_only"]})
    await soon(github.stop(), 20)
    await are({"github": [], "jira": ["jira_only", "search"]})
    topics = Topics(jira.namespace)
    card = ServerCard(server="old", tools=["search"], features=["query"])
    await client.connection.publish(topics.server_card("old"), encode(card), retain=True)
    await are({"jira": ["jira_only", "search"], "old": ["search"]})
    caplog.clear()
    found = await find_tools(client, Selection(servers=["jira"]))
    tell_missing("ns", "skip", found)
    told = [record.getMessage() for record in caplog.records]
    assert [text for text in told if text.startswith("search: a call may reach server jira or server old")]
    await client.connection.publish(topics.server_card("old"), b"", retain=True)


def test_one_text_for_a_list_of_names_is_refused() -> None:
    with pytest.raises(ValueError, match=r"tools is a list of names: write \['git_log'\]"):
        Selection(tools="git_log")


def test_what_is_missing_is_told_or_raised(caplog: pytest.LogCaptureFixture) -> None:
    hints = {"gone": "; did you mean 'done'?"}
    found = Found(missing=["gone"], missing_peers=["nobody"], missing_servers=["away"], hints=hints)
    tell_missing("ns", "skip", found)
    assert [record.getMessage() for record in caplog.records] == [
        "gone: no server offers this tool now in namespace 'ns'; it is left out; did you mean 'done'?",
        "nobody: no agent of this name is online now in namespace 'ns'; it is left out",
        "away: no tool server of this name has been seen in namespace 'ns'; it is left out",
    ]
    with pytest.raises(
        ToolUnavailable, match="gone: no server .* now in namespace 'ns'; did you mean 'done'"
    ) as raised:
        tell_missing("ns", "raise", found)
    assert raised.value.tool == "gone"


async def test_a_toolkit_that_finds_nothing_says_so_once(
    make_server: MakeServer, make_client: MakeClient, caplog: pytest.LogCaptureFixture
) -> None:
    client = await make_client()
    url, hands = BrokerURL.parse("mqtt://user:secret@broker:1883"), EmptyHands()

    async def told(selection: Selection) -> list[str]:
        caplog.clear()
        for _ in range(2):
            hands.tell(await find_tools(client, selection), url, "ns")
        return [record.getMessage() for record in caplog.records if record.name == "mqtt_agent.adapting.finding"]

    [nothing] = await told(Selection())
    assert nothing.startswith("the agent has no tools: no tool is known in namespace 'ns' at mqtt://broker:1883; start")
    server = make_server("weather")
    server.add_tool("search", lambda: 1)
    await soon(server.start())
    await becomes(client.list_tools)
    assert await told(Selection(tools=[])) == []
    assert await told(Selection()) == ["the agent has tools now: 1 in namespace 'ns' at mqtt://broker:1883"]
    [filtered] = await told(Selection(exclude=["*"]))
    assert "none of the 1 online tools is wanted in namespace 'ns'" in filtered
    hands = EmptyHands()
    await soon(server.stop())
    await until(lambda: not client._catalog.is_online("search"))
    [offline] = await told(Selection())
    assert "none of the 1 known tools is online" in offline
    lost = ServerCard(server="lost", tools=["x"], status="offline", unavailable="the machine is off")
    topics = Topics(client._scope.topics.namespace.removesuffix("/mcp"))
    await client.connection.publish(topics.server_card("lost"), encode(lost), retain=True)
    await until(lambda: client._catalog.server("lost") is not None)
    hands = EmptyHands()
    lacks, _ = await told(Selection())
    assert lacks == (
        "the list of tools is incomplete in namespace 'ns' at mqtt://broker:1883: server lost: the machine is off"
    )


async def test_for_a_misspelled_name_the_right_name_is_suggested(
    make_server: MakeServer, make_client: MakeClient
) -> None:
    server = make_server("weather")
    server.add_tool("search", lambda: 1)
    await soon(server.start())
    client = await make_client()
    await becomes(client.list_tools)
    found = await soon(find_tools(client, Selection(tools=["serch", "other"], servers=["wether", "weather"])))
    assert (found.missing, found.missing_servers) == (["serch", "other"], ["wether"])
    assert found.hints == {"serch": "; did you mean 'search'?", "other": "", "wether": "; did you mean 'weather'?"}


async def test_for_a_misspelled_peer_the_right_name_is_suggested(make_agent: MakeAgent, planner: Agent) -> None:
    writer = make_agent("writer")
    await soon(writer.start())
    await becomes(lambda: planner.peers())
    found = await soon(find(planner, Selection(), ["writr"]))
    assert (found.missing_peers, found.hints) == (["writr"], {"writr": "; did you mean 'writer'?"})


async def test_in_an_empty_namespace_the_namespace_is_suspected(make_client: MakeClient) -> None:
    found = await soon(find_tools(await make_client(), Selection(tools=["search"], servers=["weather"])))
    assert "no tool at all: do all programs use the same broker and the same namespace?" in found.hints["search"]
    assert "no server at all" in found.hints["weather"]


async def test_all_peers_are_those_that_take_tasks(make_agent: MakeAgent, planner: Agent) -> None:
    async def handle(task: TaskContext) -> None: ...

    writer, requester = make_agent("writer"), make_agent("other", meta={"requester": True})
    writer.on_task(handle)
    await soon(writer.start())
    await soon(requester.start())

    async def both_there() -> bool:
        return {card.name for card in await planner.peers()} >= {"writer", "other"}

    await becomes(both_there)
    found, missing = await soon(find_peers(planner, "all"))
    assert ([card.name for card in found], missing) == (["writer"], [])
    found, missing = await soon(find_peers(planner, ["other", "nobody"]))
    assert ([card.name for card in found], missing) == (["other"], ["nobody"])


def test_a_peer_is_described_by_its_card_in_at_most_1024_characters() -> None:
    skill = AgentSkill(id="s", name="Summaries", description="of long texts")
    card = AgentCard(name="writer", description="Writes.", capabilities=["write", "edit"], skills=[skill])
    assert describe_peer(card) == "Writes.\nCapabilities: write, edit.\n- Summaries: of long texts"
    assert describe_peer(AgentCard(name="writer")) == "The agent writer."
    assert len(describe_peer(AgentCard(name="writer", description="x" * 5000))) == 1024
