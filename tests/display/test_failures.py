"""A tool or a task that fails is seen on the console of its own process."""

from __future__ import annotations

import logging
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from brokers import Broker, Mosquitto
from mqtt_agent.aio.handlers import HandlerFailed
from mqtt_agent.display.failures import log_failure
from pydantic import TypeAdapter

RUN_ON = [Mosquitto]
PROGRAM = Path(__file__).parents[1] / "programs" / "failing_tools.py"


def line_of(text: str) -> int:
    lines = PROGRAM.read_text(encoding="utf-8").splitlines()
    return next(number for number, line in enumerate(lines, 1) if text in line)


def test_a_program_without_logging_shows_one_line_for_each_failure(broker: Broker, namespace: str) -> None:
    command = [sys.executable, str(PROGRAM), broker.url, namespace]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True)
    shown = [re.sub(r"\b[0-9a-f]{32}\b", "ID", line) for line in done.stderr.splitlines()]
    assert shown == [
        f"tool broken failed in call ID of planner: KeyError: 'Oslo' "
        f"(at {PROGRAM}:{line_of('# fails at this line')} in broken)",
        f"tool broken_in_a_thread failed in call ID of planner: ValueError: the first line "
        f"(at {PROGRAM}:{line_of('the second line')} in broken_in_a_thread)",
        f"tool leaves failed in call ID of planner: SystemExit: good bye "
        f"(at {PROGRAM}:{line_of('good bye')} in leaves)",
        f"tool unsendable failed in call ID of planner: WireError: result has the type object, which has no JSON form: "
        f"use text, numbers, lists, dicts, a dataclass or a pydantic model "
        f"(at {PROGRAM}:{line_of('def unsendable') - 1} in unsendable)",
        f"tool hangs failed in call ID of planner: CallTimeout: the tool ran longer than 0.05 s "
        f"(at {PROGRAM}:{line_of('def hangs') - 1} in hangs)",
        f"task ID from planner failed at agent writer: RuntimeError: no ink "
        f"(at {PROGRAM}:{line_of('no ink')} in write)",
    ]


def fail_with(make: Callable[[], BaseException]) -> BaseException:
    try:
        raise make()
    except BaseException as error:
        return error


def log(caplog: pytest.LogCaptureFixture, error: BaseException, **options: Any) -> list[tuple[str, str]]:
    logger = logging.getLogger("mqtt_agent.test")
    with caplog.at_level(logging.DEBUG, "mqtt_agent"):
        log_failure(logger, "tool x failed", error, **{"on_purpose": False, "handler": None, **options})
    return [(record.levelname, record.getMessage()) for record in caplog.records]


def test_the_traceback_is_logged_at_debug(caplog: pytest.LogCaptureFixture) -> None:
    error = fail_with(lambda: KeyError("city"))
    [(level, text), (detail, _)] = log(caplog, error)
    assert (level, detail) == ("WARNING", "DEBUG")
    assert re.fullmatch(rf"tool x failed: KeyError: 'city' \(at {re.escape(__file__)}:\d+ in fail_with\)", text)
    assert caplog.records[1].exc_info == (KeyError, error, error.__traceback__)


def test_an_answer_on_purpose_is_one_line_at_info(caplog: pytest.LogCaptureFixture) -> None:
    assert log(caplog, ValueError("no"), on_purpose=True) == [("INFO", "tool x failed: ValueError: no")]


def test_the_exception_in_a_wrapper_or_alone_in_a_group_is_named(caplog: pytest.LogCaptureFixture) -> None:
    inner = fail_with(lambda: SystemExit(3))
    wrapper = HandlerFailed(inner)
    wrapper.__cause__ = inner
    assert "SystemExit: 3 (at " in log(caplog, wrapper)[0][1]


@pytest.mark.skipif(sys.version_info < (3, 11), reason="exception groups are new in Python 3.11")
def test_the_only_exception_of_a_group_is_named(caplog: pytest.LogCaptureFixture) -> None:
    inner = fail_with(lambda: KeyError("city"))
    group = fail_with(lambda: ExceptionGroup("in a task group", [inner]))  # noqa: F821  # pyright: ignore
    assert "KeyError: 'city' (at " in log(caplog, group)[0][1]


def test_text_of_peers_cannot_write_to_the_terminal_and_stays_in_one_line(caplog: pytest.LogCaptureFixture) -> None:
    [(_, text), _] = log(caplog, fail_with(lambda: ValueError("\x1b[31mred" + "!" * 1000)))
    assert "\x1b" not in text
    assert len(text) < 600


def test_a_failure_in_a_library_is_placed_in_the_library(caplog: pytest.LogCaptureFixture) -> None:
    with pytest.raises(ValueError, match="unknown type") as caught:
        TypeAdapter(Any).dump_json(object())
    failure = caught.value
    assert failure.__traceback__ is not None
    failure.__traceback__ = failure.__traceback__.tb_next  # without the line of this test
    assert re.search(r"\(at \S*site-packages/pydantic/type_adapter.py:\d+ in dump_json\)", log(caplog, failure)[0][1])
