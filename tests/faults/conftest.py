"""Agents in processes, for the tests of what must survive."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from processes import AgentProcesses


@pytest.fixture
async def agents(tmp_path: Path, namespace: str) -> AsyncIterator[AgentProcesses]:
    """Starts agents in processes of their own; none outlives the test."""
    processes = AgentProcesses(tmp_path, namespace)
    yield processes
    await processes.close()
