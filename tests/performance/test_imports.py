"""An import loads no module that takes long and that most users do not need."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"
HEAVY = {
    *("langchain", "langchain_core", "langgraph", "langsmith", "autogen_core", "crewai"),
    *("httpx", "requests", "aiohttp", "urllib3", "jsonschema", "referencing", "numpy", "yaml", "rich"),
    *("iotcore", "opentelemetry.sdk", "multiprocessing", "IPython"),
}


def modules_after(program: str) -> set[str]:
    script = f"{program}\nimport sys\nprint(*sys.modules)"
    # Where coverage is measured, it would load modules of its own into this process too.
    plain = {name: value for name, value in os.environ.items() if not name.startswith("COVERAGE_")}
    command = [sys.executable, "-c", script]
    done = subprocess.run(command, env=plain, capture_output=True, text=True, timeout=60, check=True)
    return set(done.stdout.split())


@pytest.mark.parametrize("module", ["mqtt_agent", "mqtt_agent.sync"])
def test_the_core_brings_nothing_heavy_along(module: str) -> None:
    assert modules_after(f"import {module}") & HEAVY == set()


def test_the_toolkit_brings_no_more_than_langchain_core_does() -> None:
    own = "from langchain_core.tools import BaseToolkit, StructuredTool\n"
    own += "from langchain_core.utils.function_calling import convert_to_openai_tool\n"
    ours = modules_after(f"{own}\nimport langchain_mqtt_agent") - modules_after(f"{own}\nimport mqtt_agent.sync")
    packages = {name.split(".")[0] for name in ours}
    assert "langgraph" not in packages
    assert packages <= {"langchain_mqtt_agent", "langchain_core", "mqtt_agent"}


def test_the_benchmarks_need_no_pytest() -> None:
    code = "import sys; sys.modules['pytest'] = None; import subjects; assert subjects.SUBJECTS"
    subprocess.run([sys.executable, "-c", code], cwd=BENCHMARKS, check=True, timeout=60)
