"""docs/wire-format.md and the tests agree: each rule has a test, and the examples are real messages."""

from __future__ import annotations

import ast
import functools
import inspect
import json
import re
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from mqtt_agent import Agent, Connection, ToolClient, ToolServer, wire
from pydantic import BaseModel

ROOT = Path(__file__).parents[2]
DOCUMENT = (ROOT / "docs" / "wire-format.md").read_text()
LINKED = [DOCUMENT, (ROOT / "docs" / "guarantees.md").read_text()]

DEFINED = re.findall(r"\*\*\[([A-Z]+-\d+)\]\*\*", DOCUMENT)
MENTIONED = {rule for page in LINKED for rule in re.findall(r"\[([A-Z]+-\d+)\]", page)}
EXAMPLES = re.findall(r"<!-- (\w+) -->\n```json\n(.*?)```", DOCUMENT, re.DOTALL)
MODELS: list[type[wire.Message]] = [
    *(wire.Call, wire.Cancel, wire.ContentChunk, wire.InputAnswer, wire.Query, wire.Request, wire.Response),
    *(wire.ServerCard, wire.ServerEvent, wire.StreamMessage, wire.ToolCard),
    *(wire.AgentCard, wire.AgentStatus, wire.Control, wire.MemberNote, wire.Task, wire.TaskEvent, wire.TaskResult),
]


def rules_of(path: Path) -> list[tuple[str, str]]:
    """The rules of a test file, each with the test that shows the rule; the file is parsed and not imported."""
    found: list[tuple[str, str]] = []
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
            for decorator in node.decorator_list:
                if isinstance(decorator, ast.Call) and ast.unparse(decorator.func) == "pytest.mark.rule":
                    found += [(ast.literal_eval(argument), f"{path.name}::{node.name}") for argument in decorator.args]
    return found


@functools.cache
def shown() -> dict[str, list[str]]:
    """For each rule, the tests that are marked to show it."""
    tests: dict[str, list[str]] = {}
    for path in sorted((ROOT / "tests").rglob("test_*.py")):
        for rule, test in rules_of(path):
            tests.setdefault(rule, []).append(test)
    return tests


def test_no_rule_is_without_a_test() -> None:
    assert [rule for rule in DEFINED if rule not in shown()] == []


def test_no_test_names_a_rule_that_does_not_exist() -> None:
    assert {rule: tests for rule, tests in shown().items() if rule not in DEFINED} == {}


def test_no_test_names_a_rule_twice() -> None:
    assert {(rule, test) for rule, tests in shown().items() for test in tests if tests.count(test) > 1} == set()


def test_no_rule_id_is_given_twice() -> None:
    assert {rule for rule, count in Counter(DEFINED).items() if count > 1} == set()


def test_ids_are_counted_without_gaps() -> None:
    groups: dict[str, list[int]] = {}
    for rule in DEFINED:
        group, number = rule.split("-")
        groups.setdefault(group, []).append(int(number))
    assert {group: numbers for group, numbers in groups.items() if numbers != list(range(1, len(numbers) + 1))} == {}


def test_every_rule_says_where_it_comes_from() -> None:
    marked = re.findall(r"\*\*\[([A-Z]+-\d+)\]\*\* \((?:spec|ref|ours)\)", DOCUMENT)
    marked += re.findall(r"^\| \*\*\[([A-Z]+-\d+)\]\*\* \|.*\| (?:spec|ref|ours) \|$", DOCUMENT, re.MULTILINE)
    assert set(DEFINED) - set(marked) == set()


def test_every_rule_that_is_mentioned_exists() -> None:
    assert MENTIONED - set(DEFINED) == set()


def test_the_links_of_the_pages_lead_somewhere() -> None:
    for page in LINKED:
        for link in re.findall(r"\]\(([^)#]+)\)", page):
            assert (ROOT / "docs" / link).exists(), link


@pytest.mark.parametrize(("name", "example"), EXAMPLES, ids=[name for name, _ in EXAMPLES])
def test_the_examples_are_messages_without_a_field_of_their_own(name: str, example: str) -> None:
    model = getattr(wire, name)
    assert model in MODELS
    message = wire.decode(model, example.encode())
    assert json.loads(wire.encode(message)) == json.loads(example)


def test_every_message_has_an_example_and_every_field_is_named() -> None:
    assert {name for name, _ in EXAMPLES} == {model.__name__ for model in MODELS}

    def fields(model: type[BaseModel]) -> set[str]:
        return {each.serialization_alias or name for name, each in model.model_fields.items() if not each.exclude}

    nested: list[type[BaseModel]] = [wire.CallFault, wire.ToolAnnotations, wire.VersionInfo]
    nested += [wire.AgentSkill, wire.TaskFault, wire.TaskMessage, wire.Artifact, wire.Part]
    for model in [*MODELS, *nested]:
        missing = {field for field in fields(model) if f'"{field}"' not in DOCUMENT and f"`{field}`" not in DOCUMENT}
        assert (model.__name__, missing) == (model.__name__, set())


@pytest.mark.rule(
    "LIMIT-1", "LIMIT-2", "LIMIT-5", "LIMIT-6", "LIMIT-8", "CALL-11", "CALL-14", "CALL-15", "PRES-2", "PRES-11"
)
def test_the_defaults_are_those_of_the_document() -> None:
    def defaults(function: Any) -> dict[str, Any]:
        return {name: parameter.default for name, parameter in inspect.signature(function).parameters.items()}

    server, client, connection = defaults(ToolServer), defaults(ToolClient), defaults(Connection)
    mebi = 1024 * 1024
    assert (server["max_payload"], client["max_payload"], connection["max_packet_size"]) == (mebi, 16 * mebi, 16 * mebi)
    assert (client["max_cards"], client["max_pending"]) == (100_000, 10_000)
    assert (server["replay_entries"], server["replay_seconds"]) == (10_000, 600)
    assert (server["max_concurrency"], server["drain_timeout"], server["will_delay"]) == (64, 10, 5)
    assert connection["max_unacknowledged"] == 16


@pytest.mark.rule("ALIMIT-1", "ALIMIT-3", "ALIMIT-4", "ALIMIT-5", "ALIMIT-7", "ONLINE-1", "ONLINE-9")
def test_the_defaults_of_an_agent_are_those_of_the_document() -> None:
    agent = {name: parameter.default for name, parameter in inspect.signature(Agent).parameters.items()}
    assert (agent["max_payload"], agent["max_peers"]) == (1024 * 1024, 10_000)
    assert (agent["max_concurrency"], agent["max_waiting_tasks"]) == (8, 100_000)
    assert (agent["will_delay"], agent["session_expiry"], agent["retention"]) == (5, 24 * 3600, 7 * 24 * 3600)
    assert wire.AGENT_FEATURES == ("ask", "cancel", "events", "get", "input", "parts")
