"""Agents in processes, for the tests of crashes and failures."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from processes import AgentProcesses


@pytest.fixture
async def agents(tmp_path: Path, namespace: str) -> AsyncIterator[AgentProcesses]:
    """Starts agents in their own processes; all of them end with the test."""
    processes = AgentProcesses(tmp_path, namespace)
    yield processes
    await processes.close()
