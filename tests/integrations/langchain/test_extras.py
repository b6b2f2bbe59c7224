"""Packages that are not installed: the rest works without them, and an error names the extra that installs them."""

from __future__ import annotations

import subprocess
import sys

import pytest


def run_without(modules: list[str], code: str) -> subprocess.CompletedProcess[str]:
    """Run a program in a process in which some modules cannot be imported."""
    block = f"import sys; sys.modules.update(dict.fromkeys({modules!r}))\n"
    return subprocess.run([sys.executable, "-c", block + code], capture_output=True, text=True, timeout=60, check=False)


SERVE = "from langchain_mqtt_agent.__main__ import main; main(['serve', 'json:decoder', '--agent-id', 'a'"


@pytest.mark.parametrize(
    ("missing", "code", "message"),
    [
        (
            "langgraph",
            "from langchain_mqtt_agent import graph_agent; graph_agent(object(), 'a')",
            "serving a graph needs LangGraph: pip install 'langchain-mqtt-agent[langgraph]'",
        ),
        (
            "langgraph",
            f"{SERVE}])",
            "json:decoder: serving a graph needs LangGraph: pip install 'langchain-mqtt-agent[langgraph]'",
        ),
        (
            "langchain",
            "from langchain_mqtt_agent import MQTTLiveTools",
            "MQTTLiveTools needs LangChain's agents: pip install 'langchain-mqtt-agent[agents]'",
        ),
        (
            "langgraph.checkpoint.sqlite",
            f"{SERVE}, '--checkpoints', 'file'])",
            "json:decoder: --checkpoints needs an SQLite checkpointer: pip install 'langchain-mqtt-agent[checkpoints]'",
        ),
    ],
)
def test_an_error_names_the_extra_that_is_missing(missing: str, code: str, message: str) -> None:
    ended = run_without([missing], code)
    assert ended.returncode == 1
    assert ended.stderr.splitlines()[-1].removeprefix("ImportError: ") == message
