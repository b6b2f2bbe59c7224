"""Gives each answer to the question that it answers, also when one LangGraph node asks several questions.

LangGraph keeps the answers for a node in one list, and matches them with the node's interrupts by their order alone.
But tools that run at the same time ask in any order, and a call that has got its answer does not ask again when the
node runs again. So each question puts an entry with its own name before its answer in that list, and LangGraph stores
the list with the checkpoint. One question waits at a time: the others are asked when the node runs again.
"""

from __future__ import annotations

import logging
import threading
from typing import Any, cast

from langchain_core.runnables import RunnableConfig
from mqtt_agent.adapting.forks import in_child
from mqtt_agent.adapting.logs import logger_of

from langchain_mqtt_agent._langgraph import interrupt, scratchpad_of, send_resume
from langchain_mqtt_agent.places import notes_of

__all__ = ["answer_of", "pass_over"]

logger: logging.Logger = logger_of(__name__)

_OWNER = "mqtt_agent_question"
"""The key of an entry for a question. Its value is the place that asks."""
_DRAWN = "drawn"

_lock = threading.RLock()


@in_child
def _renew_lock() -> None:
    global _lock
    _lock = threading.RLock()


def answer_of(config: RunnableConfig, owner: str, number: int, question: dict[str, Any]) -> Any:
    """Get the answer to a question. It must be called in the context of the configuration.

    Args:
        config: The configuration of the run, in a node.
        owner: The place that asks.
        number: The number of the question among the questions of this place.
        question: The value of the interrupt. Its key ``schema`` is the JSON Schema of the answer.

    Raises:
        GraphInterrupt: There is no answer yet. The interrupt is this question, or another question of the same node
            that was asked before this one.
    """
    answers: list[Any] = scratchpad_of(config).resume
    with _lock:
        at = next((at for at, each in enumerate(answers) if _names(each) == (owner, number)), None)
        if at is None:
            if answers and _names(answers[-1]) is not None:
                _take(config, answers)
            elif scratchpad_of(config).get_null_resume(True) is not None:
                # An earlier version of this package has written the checkpoint, or the program's own interrupt waits.
                logger.warning(
                    "the question %.80r is asked, and the answer with which the graph was resumed is left out: it may "
                    "answer an interrupt of the program itself; give interrupts and tools that ask a node each",
                    question.get("prompt"),
                )
            at = len(answers)
            answers.append({_OWNER: owner, "number": number, "question": question})
        if at + 1 == len(answers):
            _take(config, answers)
        _draw(config, at + 2)
        send_resume(config, answers)
        return answers[at + 1]


def pass_over(config: RunnableConfig, owner: str) -> None:
    """Pass over the answers that a place has got in earlier runs of the node, so that no other interrupt gets them."""
    answers: list[Any] = scratchpad_of(config).resume
    with _lock:
        last = [at for at, each in enumerate(answers) if _first((_names(each) or ("", 0))[0]) == _first(owner)][-1:]
        if last:
            _draw(config, min(last[0] + 2, len(answers)))
            send_resume(config, answers)


def _take(config: RunnableConfig, answers: list[Any]) -> None:
    """Put the answer with which the graph was resumed behind the last question, or ask this question again."""
    answer = scratchpad_of(config).get_null_resume(True)
    if answer is None:
        question = answers[-1]["question"]
        _draw(config, len(answers))
        send_resume(config, answers)
        interrupt(question, question.get("schema"))
    answers.append(answer)


def _draw(config: RunnableConfig, end: int) -> None:
    """Let LangGraph count as many interrupts as there are entries before ``end``."""
    notes = notes_of(config)
    while notes.get((_DRAWN,), 0) < end:
        notes[(_DRAWN,)] = scratchpad_of(config).interrupt_counter() + 1


def _names(entry: Any) -> tuple[str, int] | None:
    """The place and the number of the question for which an entry stands; None for an answer."""
    if not isinstance(entry, dict) or _OWNER not in entry:
        return None
    known = cast("dict[str, Any]", entry)
    return known[_OWNER], known["number"]


def _first(owner: str) -> str:
    """What the ids of all calls and tasks at one place begin with: the later ones have ``.1``, ``.2`` and so on."""
    return owner.partition(".")[0]
