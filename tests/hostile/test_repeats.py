"""Repeats of messages that a server has handled already."""

from __future__ import annotations

from typing import Any

import pytest
from brokers import ROOMY_BROKERS, Ejabberd
from support import until

from .conftest import Stage

RUN_ON = ROOMY_BROKERS
LONG_ON = [Ejabberd]


@pytest.mark.rule("CALL-10", "QUERY-8")
async def test_a_repeated_query_with_a_call_that_is_over_gets_the_same_answer(stage: Stage) -> None:
    query_topic = stage.topics.server_query(stage.server.server_id)

    async def ask(query_id: str, call: dict[str, Any], answers: int) -> dict[str, Any]:
        query = {"query_id": query_id, "call_ids": [], "client": "peer", "tool": "echo", "call": call}
        await stage.attack(query_topic, query)
        await until(lambda: len(stage.answers()) == answers)
        return stage.answers()[-1]

    for number in (1, 2, 3):
        assert (await ask(f"q-{number}", stage.call(), number))["result"] == "hi"
    refused = await ask("q-4", {**stage.call(), "arguments": {"text": "another"}}, 4)
    assert refused["error"]["code"] == "CALL_ID_IN_USE"
    assert stage.runs == ["hi"]
    assert stage.errors() == []
