"""Skipped tests: in CI, a test is left out only where it makes no sense, and never because something is missing.

A test that makes no sense calls :func:`inapplicable`. In CI, every other skip is a failure.
"""

from __future__ import annotations

import os
from collections.abc import Generator
from typing import Any, NoReturn

import pytest

_INAPPLICABLE = "makes no sense here: "


def inapplicable(why: str, *, allow_module_level: bool = False) -> NoReturn:
    """Leave out a test that makes no sense with these parameters or versions, also in CI."""
    pytest.skip(_INAPPLICABLE + why, allow_module_level=allow_module_level)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport() -> Generator[None, Any, Any]:
    return _checked((yield))


@pytest.hookimpl(wrapper=True)
def pytest_make_collect_report() -> Generator[None, Any, Any]:
    return _checked((yield))


def _checked(report: Any) -> Any:
    if os.environ.get("CI") and report.skipped and not hasattr(report, "wasxfail"):
        reason = report.longrepr[2] if isinstance(report.longrepr, tuple) else str(report.longrepr)
        if _INAPPLICABLE not in reason:
            report.outcome = "failed"
            report.longrepr = f"no check may be left out in CI. {reason}"
    return report
