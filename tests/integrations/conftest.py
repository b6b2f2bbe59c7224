"""What the tests of several adapters share."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from brokers import Embedded
from cli.terminal import Terminal

ROOT = Path(__file__).parents[2]


@pytest.fixture
def terminal(embedded: Embedded, namespace: str, tmp_path: Path) -> Iterator[Terminal]:
    """A terminal whose programs can import the tests' scripted models."""
    terminal = Terminal(tmp_path, embedded.url, namespace)
    terminal.environment["PYTHONPATH"] = f"{ROOT}:{ROOT / 'tests'}"
    yield terminal
    terminal.close()
