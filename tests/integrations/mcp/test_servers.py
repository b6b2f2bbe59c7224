"""MCP servers of other authors behind a bridge: two of MCP's own authors, from npm, and one that FastMCP makes."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest
from installing import install_python
from mqtt_agent import ToolClient
from mqtt_agent.errors import ToolFailed
from node import Node
from support import soon

from .conftest import MakeBridge, shows_some

pytestmark = pytest.mark.long

PEERS = Path(__file__).parent / "peers"
FAST = PEERS / "fast"


@pytest.fixture(scope="session")
def peers() -> Path:
    Node.require(PEERS, "servers from npm")
    return PEERS / "node_modules" / "@modelcontextprotocol"


@pytest.mark.timeout(300)
async def test_the_filesystem_server_reads_and_writes_and_refuses(
    peers: Path, make_bridge: MakeBridge, client: ToolClient, tmp_path: Path
) -> None:
    (tmp_path / "a.txt").write_text("written here")
    await make_bridge("files", Node.command(peers / "server-filesystem" / "dist" / "index.js", str(tmp_path)))
    await shows_some(client, "files.read_text_file")
    card = await client.get_tool("files.read_text_file")
    assert card is not None
    assert card.read_only
    read = await soon(client.call("files.read_text_file", {"path": str(tmp_path / "a.txt")}), 30)
    assert "written here" in str(read)
    await soon(client.call("files.write_file", {"path": str(tmp_path / "b.txt"), "content": "over MQTT"}), 30)
    assert (tmp_path / "b.txt").read_text() == "over MQTT"
    with pytest.raises(ToolFailed, match=r"(?i)access denied"):
        await soon(client.call("files.read_text_file", {"path": "/etc/passwd"}), 30)


@pytest.mark.timeout(300)
async def test_the_server_with_everything_gives_all_kinds_of_content_and_progress(
    peers: Path, make_bridge: MakeBridge, client: ToolClient
) -> None:
    await make_bridge("every", Node.command(peers / "server-everything" / "dist" / "index.js"))
    await shows_some(client, "every.echo")
    assert await soon(client.call("every.echo", {"message": "hi"}), 30) == "Echo: hi"
    image = await soon(client.submit("every.get-tiny-image", {}), 30)
    await soon(image.result(), 30)
    assert image.response is not None
    assert "image" in [block["type"] for block in image.response.content or ()]
    heard: list[Any] = []
    arguments = {"duration": 1, "steps": 2}
    await soon(client.call("every.trigger-long-running-operation", arguments, on_partial=heard.append), 30)
    assert [each["progress"] for each in heard] == [1, 2]


@pytest.mark.timeout(400)
async def test_a_server_made_with_fastmcp_gives_results_errors_progress_resources_and_prompts(
    make_bridge: MakeBridge, client: ToolClient
) -> None:
    python = await asyncio.to_thread(install_python, FAST / "requirements.txt", FAST / ".env")
    await make_bridge("fast", [str(python), str(FAST / "server.py")])
    await shows_some(client, "fast.add")
    assert await soon(client.call("fast.add", {"a": 1, "b": 2}), 30) == {"total": 3}
    with pytest.raises(ToolFailed, match="no wind"):
        await soon(client.call("fast.fail", {"why": "no wind"}), 30)
    heard: list[Any] = []
    await soon(client.call("fast.count", {"to": 3}, on_partial=heard.append), 30)
    assert [each["progress"] for each in heard] == [1, 2, 3]
    [content] = await soon(client.read_resource("fast", "note://first"))
    assert content["text"] == "the note first"
    got = await soon(client.get_prompt("fast", "review", {"code": "2"}))
    assert got["messages"][0]["content"]["text"] == "Please review 2"
