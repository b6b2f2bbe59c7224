"""The language model of the agent: a scripted stand-in, or a real model."""

from __future__ import annotations

import json
import re
import uuid
from collections.abc import Generator, Sequence
from pathlib import PurePosixPath
from typing import Any

from langchain.chat_models import init_chat_model
from langchain_core.language_models import BaseChatModel
from langchain_core.messages import AIMessage, BaseMessage, HumanMessage, ToolMessage
from langchain_core.outputs import ChatGeneration, ChatResult

QUESTIONS = (
    "What is in this folder, which of its files defines the most, and how do the definitions in that file begin?",
    "And where else in the folder is the first thing that you showed me used?",
)
INSTRUCTIONS = (
    "You answer questions about a folder of source code, with tools and never by guessing. "
    "First count (folder_stats), then search (search_text), then read (read_lines). Answer in a few lines of Markdown."
)
DEFINITION = r"^\s*(?:export |pub |public |async )*(?:class|def|func|function|fn|struct|interface|trait) +(\w+)"

Script = Generator[Any, Any, None]


class ModelError(Exception):
    """The language model cannot be used, or cannot continue; the message says why."""


def choose(name: str | None) -> BaseChatModel:
    """Return the model with LangChain's name ``provider:name``; for None, return the scripted stand-in.

    Raises:
        ModelError: The provider is unknown, or its package or key is missing.
    """
    if name is None:
        return ScriptedModel()
    try:
        return init_chat_model(name)
    except Exception as error:  # each provider's package has its own error classes
        why = str(error).strip().split("\n")[0] or type(error).__name__
        raise ModelError(f"the model {name!r} cannot be used: {why}") from error


class ScriptedModel(BaseChatModel):
    """A scripted replacement for a language model: it follows :func:`script`, with the tools' real results.

    Like a real model, it keeps no state between two calls: all its information is in the messages.
    """

    @property
    def _llm_type(self) -> str:
        return "scripted-stand-in"

    def bind_tools(self, tools: Sequence[Any], **kwargs: Any) -> ScriptedModel:  # type: ignore[override]
        """Ignore the tools, because the script already knows them."""
        return self

    def _generate(self, messages: list[BaseMessage], *args: Any, **kwargs: Any) -> ChatResult:
        return ChatResult(generations=[ChatGeneration(message=next_message(messages))])


def next_message(messages: Sequence[BaseMessage]) -> AIMessage:
    """Run the script again up to the current point of the conversation, and return its next message."""
    conversation = script()
    step = next(conversation)
    results: list[Any] = []
    for message in messages:
        if isinstance(message, HumanMessage):
            step = conversation.send(message.text)
        elif isinstance(message, ToolMessage):
            if message.status == "error":
                raise ModelError(f"the script cannot continue after an error: {message.text}")
            results.append(json.loads(message.text))
            if len(results) == len(step):
                step, results = conversation.send(results), []
    if isinstance(step, str):
        return AIMessage(step)
    calls = [{"name": name, "args": arguments, "id": f"call-{uuid.uuid4().hex[:12]}"} for name, arguments in step]
    return AIMessage("", tool_calls=calls)


def script() -> Script:
    """Two questions and their answers.

    The generator yields a list of tool calls and receives the list of their results, or it yields an answer and
    receives the next question.
    """
    yield "What would you like to know?"

    [stats] = yield [("folder_stats", {})]
    part, kind = stats["by_folder"][0], stats["by_extension"][0]
    [found] = yield [("search_text", {"pattern": DEFINITION, "path": part["name"]})]
    what = "definitions"
    if not found["top_files"]:
        [found] = yield [("search_text", {"pattern": r"\w{4,}"})]
        what = "lines with words"
    files = (found["top_files"] or [{"path": stats["largest_file"], "lines": 0, "first_line": 1}])[:2]
    excerpts = yield [("read_lines", {"path": f["path"], "start": f["first_line"], "count": 8}) for f in files]
    named = [f"`{file['path']}` ({file['lines']:,})" for file in files]
    yield (
        f"The folder holds **{stats['files']:,} files** with {stats['lines']:,} lines, most of them in "
        f"`{kind['name']}` files ({kind['lines']:,} lines); its largest part is `{part['name']}` ({part['lines']:,} "
        f"lines). Of {found['matching_lines']:,} {what} there, most are in "
        f"{' and '.join(named)}. In the first of these they begin on line {files[0]['first_line']}:\n\n"
        f"{_fenced(excerpts[0])}"
    )

    file = files[0]["path"]
    name = _first_name(excerpts[0]["text"]) or PurePosixPath(file).stem
    [found] = yield [("search_text", {"pattern": rf"\b{re.escape(name)}\b"})]
    elsewhere = [other for other in found["top_files"] if other["path"] != file]
    place = (elsewhere or files)[0]
    start = max(1, place["first_line"] - 2)
    [excerpt] = yield [("read_lines", {"path": place["path"], "start": start, "count": 5})]
    count = found["matching_lines"]
    where = f"Elsewhere most often in `{place['path']}`" if elsewhere else "It is not named in any other file"
    yield (
        f"`{name}` is named in **{count:,} line{'s' * (count != 1)}**. {where}; from line {start} on, there is:\n\n"
        f"{_fenced(excerpt)}"
    )


def _first_name(text: str) -> str | None:
    defined = re.search(DEFINITION, text, re.MULTILINE)
    if defined:
        return defined[1]
    return max(re.findall(r"\w{4,}", text), key=len, default=None)


def _fenced(excerpt: dict[str, Any]) -> str:
    language = PurePosixPath(excerpt["path"]).suffix.removeprefix(".")
    fence = "`" * (2 + max((len(ticks) for ticks in re.findall(r"`+", excerpt["text"])), default=1))
    return f"{fence}{language}\n{excerpt['text']}\n{fence}"
