"""What a peer has written breaks no line of a log, and reaches no terminal as a command."""

from __future__ import annotations

import ast
import logging
from collections.abc import Iterator
from pathlib import Path

import pytest
from mqtt_agent.aio.faultlog import FaultLog
from mqtt_agent.logs import logger_of, printable

from tests.test_layers import SOURCES

FORGED = "x\nERROR all is lost\x1b[2J\u202e"
SHOWN = r"x\nERROR all is lost\x1b[2J\u202e"


class Lines(logging.Handler):
    """Formats records as a program does that has configured logging."""

    def __init__(self) -> None:
        super().__init__(logging.DEBUG)
        self.setFormatter(logging.Formatter("%(levelname)s %(message)s"))
        self.lines: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.lines += self.format(record).split("\n")


@pytest.fixture
def lines() -> Iterator[list[str]]:
    handler = Lines()
    logging.getLogger("mqtt_agent").addHandler(handler)
    yield handler.lines
    logging.getLogger("mqtt_agent").removeHandler(handler)


logger = logger_of("mqtt_agent.of_this_test")


class Odd:
    def __str__(self) -> str:
        raise RuntimeError("no text")


def test_a_value_of_a_record_stays_in_its_line_and_is_cut(lines: list[str]) -> None:
    logger.warning("tool %s: %s, %.3s, %r", FORGED, ValueError(FORGED), "ab\ncd", FORGED)
    logger.warning("%d of %5.1f: %s", 1, 2.0, "x" * 1_000_000)
    logger.warning("%(id)s", {"id": FORGED})
    logger.warning(FORGED)
    logger.warning("the text of %s", Odd())
    assert lines[0].startswith(f"WARNING tool {SHOWN}: {SHOWN}, ab\\, ")
    assert lines[1].startswith("WARNING 1 of   2.0: xxx")
    assert len(lines[1]) < 2100
    assert lines[2:] == [f"WARNING {SHOWN}"] * 2 + ["WARNING the text of <Odd without a text: RuntimeError>"]


def test_values_without_odd_characters_reach_the_handlers_as_they_are(caplog: pytest.LogCaptureFixture) -> None:
    error = ValueError("a plain text")
    logger.warning("%s of %d: %s", "a", 1, error)
    assert caplog.records[-1].args == ("a", 1, error)
    assert caplog.records[-1].msg == "%s of %d: %s"


def test_the_message_of_an_exception_cannot_be_taken_for_a_line_of_its_own(lines: list[str]) -> None:
    try:
        try:
            raise ValueError(FORGED)
        except ValueError as error:
            raise RuntimeError("outer") from error
    except RuntimeError as error:
        logger.error("it failed", exc_info=error)
    assert [line for line in lines if line and not line.startswith(" ")] == [
        "ERROR it failed",
        "Traceback (most recent call last):",
        "ValueError: x",
        "The above exception was the direct cause of the following exception:",
        "Traceback (most recent call last):",
        "RuntimeError: outer",
    ]
    assert "    ERROR all is lost\\x1b[2J\\u202e" in lines


def test_an_ordinary_traceback_is_left_to_the_handler(caplog: pytest.LogCaptureFixture) -> None:
    logger.error("it failed", exc_info=ValueError("a plain text"))
    assert caplog.records[-1].exc_text in (None, "ValueError: a plain text")


def test_a_fault_of_a_peer_is_one_line(lines: list[str]) -> None:
    FaultLog(logger).tell(f"a2a/v1/{FORGED}", "a bad message", FORGED * 100)
    assert len(lines) == 1
    assert len(lines[0]) < 700
    assert printable(FORGED) == SHOWN


@pytest.mark.parametrize("source", SOURCES, ids=lambda source: source.parent.name)
def test_every_module_takes_its_logger_from_logger_of(source: Path) -> None:
    wrong = [
        str(path.relative_to(source))
        for path in source.rglob("*.py")
        if path.name != "logs.py"
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.Assign | ast.AnnAssign)
        and isinstance(node.value, ast.Call)
        and ast.unparse(node.value.func) in ("logging.getLogger", "getLogger")
    ]
    assert wrong == []
