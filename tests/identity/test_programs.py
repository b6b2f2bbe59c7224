"""The programs of the examples and of other tests on brokers that allow exactly the rights of a roster."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from autogen_mqtt_agent import MQTTAgent
from brokers.guarded import DynamicSecurity, JWTEjabberd
from logins import LOGINS, denials, environment, take_logins
from mqtt_agent.identity import Roster
from skips import inapplicable
from support import require, soon, until, words_in

from tests.integrations.autogen import test_scenario
from tests.integrations.autogen.conftest import Toolbox
from tests.integrations.autogen.processes import HostProcess
from tests.integrations.langchain import test_remote_processes

pytestmark = pytest.mark.long
EXAMPLES = Path(__file__).parents[2] / "examples"
PROGRAMS = Path(__file__).parents[1] / "programs"


@pytest.fixture(params=[DynamicSecurity, JWTEjabberd], ids=lambda kind: kind.name)
def guard(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """Starts a broker for a roster. All programs that are started afterwards use the logins of the roster."""
    require(request.param)
    started: list[Any] = []

    def start(roster: str) -> Any:
        broker = request.param(Roster.parse(roster)).start()
        started.append(broker)
        for name, value in environment(broker).items():
            monkeypatch.setenv(name, value)
        return broker

    yield start
    for broker in started:
        if request.param is DynamicSecurity:
            assert denials(broker.log) == []
        broker.close()


def ran(program: str, *arguments: object) -> str:
    command = [sys.executable, str(EXAMPLES / program), *map(str, arguments)]
    environ = {**os.environ, "COLUMNS": "120"}
    done = subprocess.run(command, capture_output=True, text=True, timeout=100, check=False, env=environ)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "denied" not in done.stderr.lower()
    assert "not authorized" not in done.stderr.lower()
    return done.stdout


DEMO = """
[programs.demo-watcher]
kind = "client"
calls = "*"

[programs.demo-agent]
kind = "client"
calls = ["folder_stats", "search_text", "read_lines"]

[programs.code]
kind = "server"
replicas = ["replica-1", "replica-2"]
serves = ["folder_stats", "search_text", "read_lines"]
"""


def test_the_demo_works(guard: Any, tmp_path: Path) -> None:
    (tmp_path / "cart.py").write_text("class Cart:\n    pass\n")
    broker = guard(DEMO)
    if not broker.shares:
        inapplicable("the demo lets both replicas answer, and needs shared subscriptions")
    output = ran("demo", "--dir", tmp_path, "--broker", broker.where)
    assert "its card went offline" in output


def test_a_long_task_survives_a_sigkill(guard: Any) -> None:
    broker = guard(
        '[programs.researcher]\nkind = "agent"\n[programs.planner]\nkind = "agent"\ndelegates_to = ["researcher"]\n'
    )
    assert "'processes': 2" in ran("long_task", "--pages", "6", "--broker", broker.where)


async def test_a_killed_graph_resumes_to_the_one_result_of_a_killed_executor(guard: Any, tmp_path: Path) -> None:
    namespace = "graphs"
    broker = guard(
        f'namespace = "{namespace}"\n[programs.worker]\nkind = "agent"\n'
        '[programs.planner]\nkind = "agent"\ndelegates_to = ["worker"]\n'
    )
    started: list[subprocess.Popen[str]] = []

    def start(program: str, *args: str) -> subprocess.Popen[str]:
        command = [sys.executable, str(PROGRAMS / program), broker.where, namespace, str(tmp_path), *args]
        started.append(subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True))
        return started[-1]

    try:
        scenario = test_remote_processes.test_a_killed_graph_resumes_to_the_one_result_of_a_killed_executor
        await scenario(start, tmp_path, "sync")
    finally:
        for process in started:
            process.kill()
            process.communicate()


CHAT = """
namespace = "chat"

[programs.team]
kind = "agent"
delegates_to = ["researcher", "critic"]

[programs.researcher]
kind = "agent"

[programs.critic]
kind = "agent"

[programs.researcher-tools]
kind = "client"
calls = ["add", "greet"]

[programs.toolbox]
kind = "server"
replicas = ["only"]
serves = ["add", "greet", "count", "fail", "hang", "picture", "enlarge", "dotted.name"]
"""


async def test_a_group_chat_goes_on_when_a_host_is_killed(guard: Any, tmp_path: Path) -> None:
    broker = guard(CHAT)
    end = take_logins(os.environ[LOGINS])
    try:
        gate = tmp_path / "gate"
        gate.mkdir()
        tools = {"TOOLS_BROKER": broker.where, "TOOLS_NAMESPACE": "chat", "PYTHONPATH": os.environ["PYTHONPATH"]}
        library = HostProcess("make_researcher", "researcher", broker.where, "chat", tmp_path, GATE=str(gate), **tools)
        office = HostProcess("make_critic", "critic", broker.where, "chat", tmp_path, **tools)
        about: Any = {"namespace": "chat", "agent_id": "team", "store": tmp_path / "team.db", "absent": "wait"}
        remote = [MQTTAgent(name, broker=broker.where, **about) for name in ("researcher", "critic")]
        async with Toolbox(broker.where, "chat"):
            with library, office:
                running = asyncio.create_task(test_scenario.chat(*remote).run(task="go"))
                await until(lambda: words_in(gate / "entered"), 60)
                library.kill()
                library.start()
                await until(lambda: len(words_in(gate / "entered")) == 2, 60)
                (gate / "open").touch()
                result = await soon(running, 60)
        said = [text for kind, _, text in test_scenario.transcript(result) if kind == "TextMessage"]
        assert said[-3:] == ["she says so", "edited more", "better"]
        for each in remote:
            await soon(each.close())
    finally:
        end()
