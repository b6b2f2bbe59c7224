"""The purpose of the adapter: the kill of a member's host does not change the result of a crew."""

from __future__ import annotations

import sys
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import pytest
from brokers import Mosquitto
from forking import forked_program

from .test_kills import IMPORTED

EXAMPLE = Path(__file__).parents[3] / "examples" / "crew"


@pytest.mark.timeout(240)
def test_a_crew_whose_analyst_is_killed_in_the_middle_reports_the_same(
    mosquitto: Mosquitto, namespace: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(str(EXAMPLE))
    import story as example

    monkeypatch.setattr(example, "subprocess", SimpleNamespace(Popen=partial(forked_program, IMPORTED)))

    with example.Story(mosquitto.url, namespace, tmp_path) as story:
        undisturbed = story.run(kill=False)
        assert undisturbed == "Apples. 2024 was the best year, with 10980 euros."
        assert story.attempts == [1]
        story.kill_analyst()
        story.start_analyst(pause=200)  # the kill always happens during the analyst's second task
        story.ledger.unlink()
        assert story.run(kill=True) == undisturbed
        assert story.attempts == [1, 2]
        assert story.ledger.read_text().splitlines() == ["incomes", "verdict"]  # each was done once
    for module in ("story", "rehearsed"):
        sys.modules.pop(module, None)
