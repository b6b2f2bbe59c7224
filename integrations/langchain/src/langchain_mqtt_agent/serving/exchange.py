"""What passes between a task and a LangGraph graph: the input, the questions, the events, and the result."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any, cast

from langchain_core.messages import AIMessage, BaseMessage, HumanMessage, SystemMessage, messages_to_dict
from mqtt_agent import TaskContext
from mqtt_agent.adapting.content import as_text, in_words
from mqtt_agent.adapting.parts import are_plain, blocks_of, files_of, message_of, prompt_of
from mqtt_agent.errors import WireError
from mqtt_agent.wire import TaskMessage, to_json
from pydantic import BaseModel

from langchain_mqtt_agent.parts import blocks_in, content_of_message

__all__ = ["CALLER", "accepted", "check_no_files", "input_of", "question_of", "result_of", "tell"]

_ANSWERS = ("agent", "assistant")
"""The roles of agents."""
_KINDS: dict[str, type[BaseMessage]] = {"agent": AIMessage, "assistant": AIMessage, "system": SystemMessage}


_HANDOFF_BACK = "__is_handoff_back"
"""Supervisors of LangGraph mark the messages with which an agent gives back control: they are no answers."""


CALLER = "mqtt_caller"
"""The key in ``configurable`` under which a tool or a graph finds what the caller has told."""


def accepted(told: Any, keys: Collection[str]) -> dict[str, Any]:
    """The context that a caller has told, without the keys that this program does not accept."""
    context = told.get("context") if isinstance(told, dict) else None
    return {key: context[key] for key in keys if key in context} if isinstance(context, dict) else {}


def input_of(task: TaskContext, keys: list[str], history: bool, names: Collection[str] = ()) -> Any:
    """The input of a graph for a task.

    Args:
        task: The task.
        keys: The keys of the graph's input state.
        history: Whether the graph's thread has the conversation so far. If so, the input has only the messages after
            the graph's own last answer. The answers of other agents count as input.
        names: The names under which the graph's answers are in the conversation.

    Raises:
        ValueError: The task is a prompt, and the graph takes several keys.
    """
    data = dict(task.data) if isinstance(task.data, dict) else {}
    if "messages" in keys:
        messages = list(task.messages)
        if history:
            messages = _after_own_answer(messages, names)
        if not messages and task.prompt is not None:
            return {"messages": [HumanMessage(task.prompt)], **data}
        read = [_message(each) for each in messages]
        return {**({"messages": read} if read else {}), **data}
    prompt = prompt_of(task)
    if data or prompt is None:
        check_no_files(task)
        return data
    if len(keys) != 1:
        raise ValueError(
            f"a prompt cannot be the input of this graph: send data with the keys {', '.join(keys) or '(none)'}"
        )
    return {keys[0]: prompt}


def _message(message: TaskMessage) -> BaseMessage:
    kind = _KINDS.get(message.role, HumanMessage)
    return kind(content=cast("Any", content_of_message(message)), name=_author_of(message))


def check_no_files(task: TaskContext) -> None:
    """Make sure that no file of a task is lost when only the task's ``data`` is the input.

    Raises:
        ValueError: The task has a file.
    """
    files = files_of(blocks_of(task.parts))
    if files:
        what = in_words(files)
        raise ValueError(f"the input here is the data of the task, and the files beside the data would be lost: {what}")


def _after_own_answer(messages: list[TaskMessage], names: Collection[str]) -> list[TaskMessage]:
    """The messages after the last one that the graph itself has written.

    An answer without a name is the graph's own, unless another agent takes part in the conversation.
    """
    answers = {place: _author_of(each) for place, each in enumerate(messages) if each.role in _ANSWERS}
    alone = not any(author and author not in names for author in answers.values())
    own = [place for place, author in answers.items() if author in names or (alone and not author)]
    return messages[own[-1] + 1 :] if own else messages


def _author_of(message: TaskMessage) -> str | None:
    name = (message.model_extra or {}).get("name")
    return name if isinstance(name, str) else None


def question_of(interrupt: Any) -> tuple[str, Any]:
    """Convert an interrupt to a question and the JSON Schema of the answer, or None without a schema."""
    value = interrupt.value
    schema = getattr(interrupt, "response_schema", None)
    if isinstance(value, dict):
        if schema is None and isinstance(value.get("schema"), dict):
            schema = value["schema"]
        for key in ("prompt", "question", "message"):
            if isinstance(value.get(key), str):
                return value[key], schema
    return as_text(_plain(value)), schema if isinstance(schema, dict) else None


async def tell(task: TaskContext, mode: str, piece: Any) -> None:
    """Send a piece of a graph's stream to the requester, as an event of the task."""
    if mode == "messages":
        message = piece[0]
        if isinstance(message, AIMessage) and message.text:
            await task.stream(message.text)
        return
    if isinstance(piece, dict) and isinstance(piece.get("progress"), (int, float)):
        text = piece.get("message") or piece.get("content")
        await task.progress(piece["progress"], piece.get("total"), text if isinstance(text, str) else None)
        return
    await task.stream(_plain(piece))


def result_of(values: Any) -> Any:
    """The result of a graph: the structured response, else the text of the last message, else the state."""
    if isinstance(values, BaseModel):
        values = dict(values)
    if not isinstance(values, dict):
        return _plain(values)
    if values.get("structured_response") is not None:
        return _plain(values["structured_response"])
    messages = values.get("messages")
    if isinstance(messages, list) and messages and isinstance(messages[-1], BaseMessage):
        answer = next((each for each in reversed(messages) if not _gives_back(each)), messages[-1])
        content = answer.content
        return content if isinstance(content, str) else _answer(answer)
    return _plain({key: value for key, value in values.items() if not key.startswith("__")})


def _gives_back(message: Any) -> bool:
    return bool(getattr(message, "response_metadata", {}).get(_HANDOFF_BACK))


def _answer(message: BaseMessage) -> Any:
    """The text of a message; a message with parts when it also has files or data."""
    blocks = blocks_in(message)
    return str(message.text) if are_plain(blocks) else message_of(blocks)


def _plain(value: Any) -> Any:
    if isinstance(value, BaseMessage):
        return messages_to_dict([value])[0]
    if isinstance(value, dict):
        return {str(key): _plain(each) for key, each in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(each) for each in value]
    try:
        return to_json(value)
    except WireError:
        return str(value)
