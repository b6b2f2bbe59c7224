"""A short storm; ``make storm`` runs the long one."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from brokers import Mosquitto
from brokers.guarded import DynamicSecurity
from databases import Postgres
from support import require

from .storm import Storm


@pytest.mark.timeout(300)
async def test_each_task_has_one_right_result_after_a_storm(tmp_path: Path) -> None:
    require(Mosquitto)
    seed = int.from_bytes(os.urandom(3), "big")
    report = await Storm(tmp_path, seed, tasks=200, seconds=20, grace=200, pause=0.7).run()
    print(report)
    assert report.good, str(report)
    assert report.kills["executor"]


@pytest.mark.long
@pytest.mark.timeout(200)
async def test_a_storm_on_a_broker_that_allows_only_the_rights_of_a_roster_is_denied_nothing(tmp_path: Path) -> None:
    require(DynamicSecurity)
    seed = int.from_bytes(os.urandom(3), "big")
    report = await Storm(tmp_path, seed, tasks=200, seconds=20, grace=90, pause=0.7, bound=True).run()
    print(report)
    assert report.good, str(report)
    assert report.kills["executor"]


@pytest.mark.long
@pytest.mark.timeout(300)
async def test_each_task_of_a_pool_has_one_right_result_after_a_storm(tmp_path: Path) -> None:
    require(Mosquitto)
    require(Postgres)
    seed = int.from_bytes(os.urandom(3), "big")
    report = await Storm(tmp_path, seed, tasks=300, seconds=40, grace=120, pause=0.9, pool=True).run()
    print(report)
    assert report.good, str(report)
    assert report.kills["executor"]
