"""The reference implementation, from npm, as processes that exchange JSON lines with the tests."""

from __future__ import annotations

import asyncio
import itertools
import json
from pathlib import Path
from typing import Any

import brokers
from node import Node
from support import soon, until

HERE = Path(__file__).parent
STARTED_WITHIN = 20.0


class Peer:
    """A process that uses the reference SDK; ``said`` contains its output, line by line.

    Args:
        program: The name of a program in this folder.
        arguments: The arguments of the program.
    """

    def __init__(self, program: str, *arguments: str) -> None:
        self.said: list[dict[str, Any]] = []
        self._command = Node.command(HERE / program, *arguments)
        self._process: asyncio.subprocess.Process | None = None
        self._reading: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Start the process, and wait until it is ready."""
        self._process = await asyncio.create_subprocess_exec(
            *self._command,
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            preexec_fn=brokers.die_with_parent,
            limit=2**24,
        )
        self._reading = asyncio.ensure_future(self._read())
        await until(lambda: self.heard("ready") or self.ended, STARTED_WITHIN)
        assert self.heard("ready"), f"{self._command} did not start"

    async def _read(self) -> None:
        assert self._process is not None
        assert self._process.stdout is not None
        async for line in self._process.stdout:
            self.said.append(json.loads(line))
            self._on_said(self.said[-1])

    def _on_said(self, message: dict[str, Any]) -> None:
        """Add a line of the output."""

    @property
    def ended(self) -> bool:
        """Whether the process has written its last line."""
        return self._reading is not None and self._reading.done()

    def heard(self, key: str) -> list[dict[str, Any]]:
        """The messages with this key."""
        return [message for message in self.said if key in message]

    async def hear(self, key: str) -> None:
        """Wait for the first message with this key."""
        await until(lambda: self.heard(key))

    def tell(self, message: dict[str, Any]) -> None:
        """Send a command to the process."""
        assert self._process is not None
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(message).encode() + b"\n")

    async def stop(self) -> None:
        """Let the process stop in an orderly way, and wait until it has ended."""
        if self._process is None or self._reading is None:
            return
        assert self._process.stdin is not None
        self._process.stdin.close()
        try:
            await soon(self._process.wait())
        finally:
            await self.kill()

    async def kill(self) -> None:
        """End the process with SIGKILL, if it still runs."""
        process, self._process = self._process, None
        if process is None or self._reading is None:
            return
        if process.returncode is None:
            process.kill()
        await soon(process.wait())
        await soon(self._reading)


class ReferenceServer(Peer):
    """A tool server that uses the reference SDK; server.mjs describes its tools.

    Args:
        url: The broker's URL.
        namespace: The namespace, in the form that the SDK expects.
        name: The server's name.
        tools: The tools that the server offers; by default all.
    """

    def __init__(self, url: str, namespace: str, name: str, *tools: str) -> None:
        super().__init__("server.mjs", url, namespace, name, *tools)
        self.name = name

    @property
    def executed(self) -> list[dict[str, Any]]:
        """The calls that the server's tools received: tool, call_id, client and arguments."""
        return self.heard("executed")


class CallFailed(Exception):
    """The reference client reported that a call failed."""


class ReferenceClient(Peer):
    """A client that uses the reference SDK.

    Args:
        url: The broker's URL.
        namespace: The namespace, in the form that the SDK expects.
        name: The client's id.
    """

    def __init__(self, url: str, namespace: str, name: str) -> None:
        super().__init__("client.mjs", url, namespace, name)
        self.name = name
        self._ids = itertools.count()
        self._answers: dict[int, asyncio.Future[dict[str, Any]]] = {}

    def _on_said(self, message: dict[str, Any]) -> None:
        if "id" in message and "partial" not in message:
            self._answers.pop(message["id"]).set_result(message)

    async def call(self, tool: str, arguments: dict[str, Any] | None = None, **options: Any) -> Any:
        """Call a tool. ``...`` stands for a result that is undefined.

        Raises:
            CallFailed: The call failed, with the SDK's message.
        """
        return await self._ask(call=tool, arguments=arguments or {}, **options)

    async def call_streaming(self, tool: str, arguments: dict[str, Any] | None = None) -> tuple[list[Any], Any]:
        """Call a tool, and collect the partials before the result; only one call at a time is possible."""
        before = len(self.said)
        result = await self._ask(call=tool, arguments=arguments or {}, stream=True)
        return [message["partial"] for message in self.said[before:] if "partial" in message], result

    async def card(self, tool: str) -> Any:
        """Fetch a tool's card."""
        return await self._ask(card=tool)

    async def _ask(self, **command: Any) -> Any:
        number = next(self._ids)
        answer = self._answers[number] = asyncio.get_running_loop().create_future()
        self.tell({"id": number, **command})
        message = await soon(answer, 40)
        if "error" in message:
            raise CallFailed(message["error"])
        return message.get("result", ...)
