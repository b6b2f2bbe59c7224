"""A user's program: it loads a saved state, says something to a remote agent, and writes down the answer.

It saves its state again and again while it waits, as docs/autogen.md says.
"""

from __future__ import annotations

import asyncio
import json
import sys
from pathlib import Path
from typing import Any

from autogen_mqtt_agent import MQTTAgent

from .processes import Program

USERS = "tests.integrations.autogen.users"


class User(Program):
    """A process that runs :func:`main`.

    Args:
        state: The file with the state that is loaded, if it exists. The process writes its own states to ``saved``.
        words: What the user says.
        options: The arguments of the participant.
    """

    def __init__(self, folder: Path, state: Path, words: str, **options: Any) -> None:
        folder.mkdir(exist_ok=True)
        self.saved = folder / "state.json"
        self._told = folder / "answer.json"
        super().__init__("-m", USERS, str(folder), str(state), words, json.dumps(options))

    @property
    def done(self) -> bool:
        return self._told.exists()

    @property
    def questions(self) -> list[str]:
        """The questions that the user has answered, with the words."""
        file = self._told.with_name("questions")
        return file.read_text().splitlines() if file.exists() else []

    @property
    def answer(self) -> str:
        return json.loads(self._told.read_text())["answer"]

    @property
    def standing(self) -> dict[str, Any]:
        """The state that the process saved last."""
        return json.loads(self.saved.read_text()) if self.saved.exists() else {"pending": None}


def write(file: Path, value: Any) -> None:
    """Write a file that is complete at each moment."""
    new_file = file.with_suffix(".new")
    new_file.write_text(json.dumps(value))
    new_file.replace(file)


async def main(folder: Path, state: Path, words: str, options: dict[str, Any]) -> None:
    def on_question(question: str, schema: Any) -> Any:
        with (folder / "questions").open("a") as questions:
            questions.write(f"{question}\n")
        return f"{words} to {question}"

    participant = MQTTAgent("clerk", absent="wait", on_question=on_question, **options)
    if state.exists():
        await participant.load_state(json.loads(state.read_text()))
    running = asyncio.create_task(participant.run(task=words))
    while not running.done():
        await asyncio.wait([running], timeout=0.05)
        write(folder / "state.json", await participant.save_state())
    write(folder / "answer.json", {"answer": running.result().messages[-1].to_text()})


if __name__ == "__main__":
    where, loaded, said, settings = sys.argv[1:5]
    asyncio.run(main(Path(where), Path(loaded), said, json.loads(settings)))
