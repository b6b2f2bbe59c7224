"""An MCP server that is made with the official Python SDK: python sdk_server.py [HTTP_PORT]."""

from __future__ import annotations

import asyncio
import os
import sys
from pathlib import Path
from typing import Annotated, Any

from mcp.server.mcpserver import Context, Elicit, MCPServer, Resolve
from mcp.server.mcpserver.exceptions import ToolError
from mcp_types import Completion, ToolAnnotations
from pydantic import BaseModel

app = MCPServer("sdk")


class Sum(BaseModel):
    sum: int


@app.tool(annotations=ToolAnnotations(read_only_hint=True))
def add(a: int, b: int) -> Sum:
    """Add two numbers."""
    return Sum(sum=a + b)


@app.tool()
def greet(name: str) -> str:
    """Say hello."""
    return f"hello {name}"


@app.tool()
def fail(why: str) -> str:
    """Never works."""
    raise ToolError(why)


@app.tool()
async def count(to: int, ctx: Context) -> str:
    """Count up, with progress."""
    for number in range(1, to + 1):
        await ctx.report_progress(number, to, f"step {number}")
    return "counted"


@app.tool()
async def hang(marker: str) -> str:
    """Never ends. Writes into a file when it begins, and when it is canceled."""
    Path(marker).write_text("begun")
    try:
        await asyncio.sleep(600)
    except BaseException:
        Path(marker).write_text("canceled")
        raise
    return "never"


@app.tool()
async def nap(seconds: float) -> str:
    """Takes its time, and says nothing meanwhile."""
    await asyncio.sleep(seconds)
    return "awake"


class Seat(BaseModel):
    seat: str


async def which_seat() -> Elicit[Seat]:
    return Elicit("Which seat?", Seat)


@app.tool()
def book(day: str, seat: Annotated[Seat, Resolve(which_seat)]) -> str:
    """Asks for a seat."""
    return f"{day}: {seat.seat}"


@app.resource("note://first", mime_type="text/plain")
def first_note() -> str:
    return "the first note"


@app.resource("note://by-name/{name}")
def note(name: str) -> str:
    return f"the note {name}"


@app.prompt()
def review(code: str) -> str:
    """Review code."""
    return f"Please review {code}"


@app.completion()
async def complete(ref: Any, argument: Any, context: Any) -> Completion:
    return Completion(values=[f"{argument.value}-1", f"{argument.value}-2"])


@app.tool()
def pid() -> int:
    """The process id."""
    return os.getpid()


if __name__ == "__main__":
    if len(sys.argv) > 1:
        app.run("streamable-http", host="127.0.0.1", port=int(sys.argv[1]))
    else:
        app.run("stdio")
