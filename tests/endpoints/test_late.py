"""Retained messages that reach the broker only after a reconnect."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
from mqtt_agent.endpoints.late import LateMessages


def test_a_late_message_may_be_the_latest_one_until_another_one_has_replaced_it() -> None:
    connection: Any = SimpleNamespace(epoch=1)
    late = LateMessages(connection)
    with late.watched():
        assert late.may_be_latest
    assert not late.may_be_latest
    with late.watched():
        connection.epoch = 2
    assert late.may_be_latest
    connection.epoch = 3  # lost again, before the endpoint has published anything
    assert late.may_be_latest
    with pytest.raises(RuntimeError), late.watched():
        raise RuntimeError("not sent")
    assert late.may_be_latest
    with late.watched():
        pass
    assert not late.may_be_latest
