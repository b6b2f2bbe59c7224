"""The pages of docs/ are correct: their messages exist, their code runs, and the site has no broken link."""

from __future__ import annotations

import ast
import os
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from brokers import Embedded, Mosquitto, password_line
from mqtt_agent.sync import Agent

from tests.certificates import Authority

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
HOLE = "…"


def templates() -> Iterator[str]:
    """Every string of the source, with a placeholder for each inserted value."""
    for folder in ("core/src", "integrations"):
        for path in (ROOT / folder).rglob("*.py"):
            for node in ast.walk(ast.parse(path.read_text())):
                if isinstance(node, ast.JoinedStr):
                    yield "".join(str(part.value) if isinstance(part, ast.Constant) else HOLE for part in node.values)
                elif isinstance(node, ast.Constant) and isinstance(node.value, str):
                    yield node.value


def headings(page: str) -> list[str]:
    return re.findall(r"^### (.+)$", (DOCS / page).read_text(), re.MULTILINE)


def test_each_message_in_troubleshooting_is_one_of_ours() -> None:
    known = list(templates())
    messages = [re.fullmatch("`(.*)`", heading) for heading in headings("troubleshooting.md")]
    quoted = [match[1] for match in messages if match]
    assert len(quoted) > 20
    for message in quoted:
        parts = [re.escape(part) for part in message.split(HOLE)]
        pattern = re.compile(".*".join(parts), re.DOTALL)
        assert any(pattern.search(text) for text in known), message
        assert len(max(message.split(HOLE), key=len)) > 8, f"{message}: says too little to be found"


def fences(page: str, language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", (DOCS / page).read_text(), re.MULTILINE | re.DOTALL)


@pytest.mark.parametrize(
    ("number", "says"),
    [(0, "{'city': 'Oslo', 'celsius': [21, 21, 21]}\n"), (1, "MQTT: chapter 0, chapter 1, chapter 2 on shelf 7\n")],
)
def test_the_first_programs_run(number: int, says: str, tmp_path: Path) -> None:
    program = fences("index.md", "python")[number]
    environment = {name: value for name, value in os.environ.items() if name != "MQTT_AGENT_BROKER"}
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=60
    )
    assert (done.stdout, done.stderr) == (says, "")


def test_the_settings_of_production_are_those_of_a_broker_that_works(
    make_mosquitto: Callable[..., Mosquitto], tmp_path: Path
) -> None:
    [settings] = fences("production.md", "conf")
    lines = [
        line for line in settings.splitlines() if not line.startswith(("listener", "cafile", "certfile", "keyfile"))
    ]
    lines = [line.replace("/etc/mosquitto/", "{folder}/") for line in lines if "anonymous" not in line]
    broker = make_mosquitto(
        [line for line in lines if not line.startswith("persistence_location")],
        anonymous=False,
        files={"acl": "user agent\ntopic readwrite #\n", "passwords": password_line("agent", "secret")},
        credentials={"username": "agent", "password": "secret"},
    )
    url = broker.url.replace("//", "//agent:secret@")
    with (
        Agent("writer", broker=url, store=tmp_path / "1.db") as writer,
        Agent("planner", broker=url, store=tmp_path / "2.db") as planner,
    ):
        writer.on_task(lambda task: "done")
        assert planner.request("writer", "write", wait_online=True, timeout=20) == "done"


def test_the_endpoints_of_production_can_be_made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    program, _ = fences("production.md", "python")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    authority = Authority(tmp_path / "certificates", "test")
    leaf = authority.issue("weather")
    authority.certificate.rename(tmp_path / "ca.pem")
    leaf.certificate.rename(tmp_path / "weather.pem")
    leaf.key.rename(tmp_path / "weather.key")
    made: dict[str, object] = {}
    exec(program, made)
    assert "stopped" in repr(made["server"])
    assert "wss://broker.example" in repr(made["agent"])


def test_the_toolkit_of_a_server_that_forks_is_not_connected_at_the_fork(embedded: Embedded) -> None:
    pytest.importorskip("langchain_mqtt_agent")
    _, program = fences("production.md", "python")
    made: dict[str, Any] = {}
    exec(program.replace("mqtt://localhost:1883", embedded.url), made)
    assert made["tools"] == []
    assert not made["toolkit"].connection.started


def test_all_code_in_docs_is_run_by_a_test() -> None:
    pages = {str(path.relative_to(DOCS)): path.read_text() for path in DOCS.rglob("*.md")}
    tests = "".join(path.read_text() for path in (ROOT / "tests").rglob("*.py"))
    untested = {
        page
        for page, text in pages.items()
        if "```python" in text and not re.search(rf'"(docs/)?{re.escape(page)}"', tests)
    }
    assert untested == set()


def exported(adapter: str) -> list[str]:
    """What an adapter offers beside its version, also one that is not installed here."""
    source = (ROOT / "integrations" / adapter / "src" / f"{adapter}_mqtt_agent" / "__init__.py").read_text()
    [names] = [
        ast.literal_eval(node.value)
        for node in ast.parse(source).body
        if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name) and node.targets[0].id == "__all__"
    ]
    return [name for name in names if name != "__version__"]


@pytest.mark.timeout(180)
def test_the_site_is_built_without_a_broken_link(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(tmp_path / "site")]
    environment = {**os.environ, "NO_MKDOCS_2_WARNING": "1"}
    built = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=150)
    assert built.returncode == 0, built.stderr
    tools = (tmp_path / "site" / "reference" / "tools.html").read_text()
    for name in ("ToolServer", "ToolClient", "list_tools", "watch_tools", "CallHandle"):
        assert name in tools
    assert "take_partial" not in tools
    for adapter in ("langchain", "autogen", "crewai"):
        page = (tmp_path / "site" / "reference" / f"{adapter}.html").read_text()
        for name in exported(adapter):
            assert f'id="{adapter}_mqtt_agent.{name}"' in page, "it has a place of its own in the reference"
    pages = "".join(path.read_text() for path in (tmp_path / "site").rglob("*.html"))
    assert ":class:" not in pages
    assert not re.findall(r'(?:src="|rel="stylesheet" href=")(?:https?:)?//', pages), "it asks nobody else for anything"
