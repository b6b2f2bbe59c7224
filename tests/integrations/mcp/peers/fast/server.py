"""An MCP server that is made with FastMCP, over standard input."""

from __future__ import annotations

from dataclasses import dataclass

from fastmcp import Context, FastMCP  # pyright: ignore[reportMissingImports]
from fastmcp.exceptions import ToolError  # pyright: ignore[reportMissingImports]

app = FastMCP("fast")


@dataclass
class Total:
    total: int


@app.tool(annotations={"readOnlyHint": True})
def add(a: int, b: int) -> Total:
    """Add two numbers."""
    return Total(a + b)


@app.tool
def fail(why: str) -> str:
    """Never works."""
    raise ToolError(why)


@app.tool
async def count(to: int, ctx: Context) -> str:
    """Count up, with progress."""
    for number in range(1, to + 1):
        await ctx.report_progress(number, to)
    return "counted"


@app.resource("note://{name}")
def note(name: str) -> str:
    """A note."""
    return f"the note {name}"


@app.prompt
def review(code: str) -> str:
    """Review code."""
    return f"Please review {code}"


if __name__ == "__main__":
    app.run("stdio", show_banner=False)
