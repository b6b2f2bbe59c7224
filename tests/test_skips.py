"""A skipped test hides no check in CI."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

MODULE = """
import pytest
from skips import inapplicable

def test_that_something_is_missing_for():
    pytest.skip("the broker is not installed")

@pytest.mark.skipif(True, reason="only Windows has this")
def test_of_another_system():
    pass

@pytest.mark.xfail(reason="a fault of the broker")
def test_that_is_known_to_fail():
    assert False

def test_that_makes_no_sense():
    inapplicable("one broker is enough")
"""


@pytest.mark.parametrize(
    ("environment", "outcome"),
    [({"CI": "true"}, "1 failed, 1 skipped, 1 xfailed, 2 errors"), ({}, "4 skipped, 1 xfailed")],
    ids=["in CI", "elsewhere"],
)
def test_a_skip_is_a_failure_only_in_ci_and_only_when_it_hides_a_check(
    environment: dict[str, str], outcome: str, tmp_path: Path
) -> None:
    (tmp_path / "test_some.py").write_text(MODULE)
    (tmp_path / "test_whole_module.py").write_text("import pytest\n\npytest.importorskip('a_package_of_nobody')\n")
    others = {name: value for name, value in os.environ.items() if name != "CI" and not name.startswith("PYTEST_")}
    command = [sys.executable, "-m", "pytest", "-p", "skips", "-p", "no:cacheprovider"]
    alone = {"PYTHONPATH": str(Path(__file__).parent), "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"}
    environment = {**others, **alone, **environment}
    said = subprocess.run(
        [*command, "--rootdir", str(tmp_path), "--continue-on-collection-errors", str(tmp_path)],
        capture_output=True,
        text=True,
        env=environment,
        timeout=100,
        check=False,
    ).stdout
    assert outcome in said, said
    assert said.count("no check may be left out in CI") >= (3 if "CI" in environment else 0), said
