"""The demo, started as a user starts it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest
from brokers import Mosquitto
from model_server import Calls, ModelServer, Request, last_question, results
from support import kill

DEMO = Path(__file__).parents[2] / "examples" / "demo"
Run = Callable[..., "subprocess.Popen[str]"]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A small project, with a file that must never be read."""
    project = tmp_path / "project"
    (project / "shop").mkdir(parents=True)
    (project / "shop" / "cart.py").write_text(
        "class Cart:\n    def add(self, item):\n        self.items.append(item)\n"
    )
    (project / "shop" / "pay.py").write_text("from shop.cart import Cart\n\n\ndef pay(cart: Cart):\n    return 0\n")
    (project / "README.md").write_text("# Shop\n\nA Cart and a way to pay.\n")
    (project / ".env").write_text("PASSWORD=Cart\n")
    (tmp_path / "secret.txt").write_text("class Cart\n")
    return project


@pytest.fixture
def run() -> Iterator[Run]:
    started: list[subprocess.Popen[str]] = []

    def start(*arguments: object) -> subprocess.Popen[str]:
        command = [sys.executable, str(DEMO), *map(str, arguments)]
        pipe = subprocess.PIPE
        process = subprocess.Popen(command, stdout=pipe, stderr=pipe, text=True, env={**os.environ, "COLUMNS": "120"})
        started.append(process)
        return process

    yield start
    for process in started:
        kill(process)


def finish(process: subprocess.Popen[str]) -> tuple[int, str, str]:
    output, errors = process.communicate(timeout=100)
    return process.returncode, output, errors


def read_up_to(process: subprocess.Popen[str], text: str) -> None:
    assert process.stdout is not None
    for line in process.stdout:
        if text in line:
            return
    pytest.fail(f"ended before it said {text!r}: {process.stderr and process.stderr.read()}")


def test_an_agent_works_on_when_a_replica_is_killed(run: Run, folder: Path) -> None:
    code, output, errors = finish(run("--dir", folder))
    assert (code, errors) == (0, "")
    assert "scripted stand-in" in output
    first, second = output.split("SIGKILL to ")
    assert first.count(" answered ") >= 3
    killed = second.split(",")[0]
    assert "its card went offline" in second
    assert second.count(" answered ") >= 1
    assert f"{killed} answered" not in second
    assert "class Cart" in output
    assert "secret" not in output
    assert ".env" not in output


def test_a_real_model_is_asked_by_its_own_client(run: Run, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def says(request: Request) -> str | Calls:
        question = last_question(request)
        found = results(request, since=question)
        if "defines the most" in str(request["messages"][question]["content"]):
            steps: Calls = [("folder_stats", {}), ("read_lines", {"path": "shop/cart.py"})]
        else:
            steps = [("search_text", {"pattern": "Cart"})]
        return [steps[len(found)]] if len(found) < len(steps) else f"It was said {len(found)} times."

    with ModelServer(says).running(monkeypatch) as server:
        code, output, errors = finish(run("--dir", folder, "--model", "openai:gpt-5"))
    assert (code, errors) == (0, "")
    assert "scripted stand-in" not in output
    assert "openai:gpt-5" in output
    assert "It was said 2 times." in output
    assert "It was said 1 times." in output.split("SIGKILL to ")[1]
    assert all("count" in str(request["messages"][0]).lower() for request in server.requests), "it got its instructions"


@pytest.mark.long
def test_it_works_on_a_broker_that_runs_already(run: Run, folder: Path, mosquitto: Mosquitto) -> None:
    code, output, errors = finish(run("--dir", folder, "--broker", mosquitto.url))
    assert (code, errors) == (0, "")
    assert mosquitto.url in output


@pytest.mark.parametrize(
    "number", [signal.SIGINT, pytest.param(signal.SIGTERM, marks=pytest.mark.long), signal.SIGKILL]
)
def test_no_process_is_left_when_it_is_ended_early(run: Run, folder: Path, number: signal.Signals) -> None:
    process = run("--dir", folder)
    read_up_to(process, "Served by")
    children = psutil.Process(process.pid).children(recursive=True)
    assert len(children) >= 3, "two replicas and a broker"
    process.send_signal(number)
    code, _, errors = finish(process)
    assert code == (130 if number != signal.SIGKILL else -number)
    assert "Traceback" not in errors
    _, alive = psutil.wait_procs(children, timeout=20)
    assert alive == []


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--dir", "no-such-folder"), "is no folder"),
        (("--model", "nobody:nothing"), "nobody"),
    ],
)
def test_what_cannot_work_is_said_in_one_line(run: Run, arguments: tuple[str, ...], message: str) -> None:
    check_one_line(run, arguments, message)


def test_a_broker_that_is_not_there_is_said_in_one_line(run: Run, url_of_nobody: str) -> None:
    check_one_line(run, ("--broker", url_of_nobody), "no MQTT broker answers")


def check_one_line(run: Run, arguments: tuple[str, ...], message: str) -> None:
    code, _, errors = finish(run(*arguments))
    assert code == 1
    assert message in errors
    assert len(errors.splitlines()) == 1
