"""The demo's output: with live progress on a terminal, line by line in a pipe."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from langchain_core.messages import AIMessage, BaseMessage, ToolMessage
from mqtt_agent import ServerCard, ToolCard
from replicas import Replica
from rich.console import Console
from rich.markdown import Markdown
from rich.padding import Padding
from rich.panel import Panel
from rich.progress import BarColumn, Progress, SpinnerColumn, TaskID, TextColumn
from rich.table import Table
from rich.text import Text


class Screen:
    """Writes to the terminal, or to a standard output that is no terminal.

    Use the screen as a context manager during calls: it shows their progress live.
    """

    def __init__(self) -> None:
        self.console = Console(highlight=False)
        self._live = Progress(
            TextColumn("   "),
            SpinnerColumn(),
            BarColumn(24),
            TextColumn("{task.completed:.0f}/{task.total:.0f} {task.fields[message]}", markup=False),
            console=self.console,
            transient=True,
            disable=not self.console.is_terminal,
        )
        self._bars: dict[str, TaskID] = {}
        self._partials: dict[str, int] = {}
        self._quarters: dict[str, int] = {}

    def __enter__(self) -> Screen:
        self._live.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._live.stop()

    def opening(self, broker: str, folder: Path, model: str | None) -> None:
        """Show the broker, the folder and the model; without a model's name, the model is the stand-in."""
        stand_in = Text("a scripted stand-in, no language model (a real one: make demo MODEL=provider:name)", "yellow")
        facts = Table.grid(padding=(0, 2))
        facts.add_row("Broker", Text(broker))
        facts.add_row("Folder", Text(str(folder)))
        facts.add_row("Model", Text(model) if model else stand_in)
        self.console.print(Panel(facts, title="MQTT.Agent: tools in other processes", title_align="left"))

    def tools(self, tools: Sequence[ToolCard], servers: Sequence[ServerCard], replicas: Sequence[Replica]) -> None:
        """Show the tools found on the broker, and the replicas that serve them."""
        found = Table.grid(padding=(0, 2))
        for card in tools:
            found.add_row(Text(card.tool, "cyan"), Text(" ".join(card.description.split()).split(". ")[0]))
        serving = Table.grid(padding=(0, 2))
        pids = {replica.server_id: f"pid {replica.pid}" for replica in replicas}
        for card in servers:
            serving.add_row(Text(card.server, "magenta"), pids.get(card.server), Text(", ".join(card.tools), "cyan"))
        self.section("Tools found on the broker")
        self.console.print(Padding(found, (0, 2)))
        self.section("Served by")
        self.console.print(Padding(serving, (0, 2)))

    def question(self, text: str) -> None:
        """Show a question to the agent."""
        self.section(f"Question: {text}")

    def partial(self, partial: dict[str, Any]) -> None:
        """Show a partial result or the progress of a tool."""
        call, data = str(partial.get("tool_call_id")), _progress(partial)
        self._partials[call] = self._partials.get(call, 0) + 1
        if data is None:
            return
        done, total, message = data["progress"], data.get("total") or 0, data.get("message", "")
        if call not in self._bars:
            self._bars[call] = self._live.add_task("", total=total, message=message)
        self._live.update(self._bars[call], completed=done, message=message)
        quarter = int(4 * done / total) if total else 0
        if not self.console.is_terminal and quarter > self._quarters.get(call, 0):
            self._quarters[call] = quarter
            self._line(f"    … {done} of {total}: {message}", "dim")

    def message(self, message: BaseMessage) -> None:
        """Show a step of the agent: its tool calls, the answer to a call, or the agent's own answer."""
        if isinstance(message, ToolMessage):
            self._answered(message)
        elif isinstance(message, AIMessage):
            for call in message.tool_calls:
                arguments = ", ".join(f"{name}={json.dumps(value)}" for name, value in call["args"].items())
                line = Text.assemble("  → ", (call["name"], "cyan"), f"({arguments})")
                self.console.print(line, no_wrap=True, overflow="ellipsis")
            if not message.tool_calls:
                answer = Markdown(_printable(message.text), code_theme="ansi_dark")
                self.console.print(Panel(answer, title="Answer", title_align="left", border_style="green"))

    def section(self, text: str) -> None:
        """Begin a new section with a heading."""
        self.console.print()
        self._line(text, "bold")

    def event(self, text: str) -> None:
        """Show an event that was observed."""
        self._line(f"    ✓ {text}", "")

    def closing(self, text: str) -> None:
        """Show the last line."""
        self.console.print()
        self._line(text, "bold green")

    def _answered(self, message: ToolMessage) -> None:
        call, artifact = str(message.tool_call_id), message.artifact or {}
        if call in self._bars:
            self._live.remove_task(self._bars.pop(call))
        if message.status == "error":
            self._line(f"    ✗ {message.name}: {message.text}", "red")
            return
        line = Text.assemble("    ✓ ", (str(artifact.get("server")), "magenta"), f" answered {message.name}")
        if artifact.get("elapsed_ms") is not None:
            line.append(f" in {artifact['elapsed_ms']:.0f} ms")
        if call in self._partials:
            line.append(f", after {self._partials[call]} partials")
        self.console.print(line)

    def _line(self, text: str, style: str) -> None:
        self.console.print(Text(_printable(text), style=style))


def _printable(text: str) -> str:
    """Remove escape sequences that a file may contain, because they could control the terminal."""
    return "".join(char if char.isprintable() or char in "\n\t" else "\N{REPLACEMENT CHARACTER}" for char in text)


def _progress(partial: dict[str, Any]) -> dict[str, Any] | None:
    data = partial.get("partial")
    return data if isinstance(data, dict) and "progress" in data else None
