"""Runs the tests that have just failed again, each three times and alone; called by the Makefile in CI.

Most tests start brokers and kill processes, several tests at once on two cores. Of 5,400 such tests, one may fail in a
run for a reason of its own, such as a message that comes first only nearly always. Such a test is a fault of the
project that somebody has to mend, and the last lines of the output name the test. But the test says nothing about the
change under test when it passes three times alone. More than three failed tests are not looked at again.

Usage: again.py PYTEST...    (the words of the command that runs pytest)
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

FAILED = Path(".pytest_cache/v/cache/lastfailed")
MOST = 3
TIMES = 3


def main(pytest: list[str]) -> int:
    failed = sorted(json.loads(FAILED.read_text())) if FAILED.exists() else []
    if not 0 < len(failed) <= MOST:
        print(f"{len(failed)} failed tests are not run again: at most {MOST} are", flush=True)
        return 1
    for number in range(1, TIMES + 1):
        print(f"Run {number} of {TIMES}, alone: {', '.join(failed)}", flush=True)
        if subprocess.run([*pytest, "-p", "no:cacheprovider", *failed], check=False).returncode:
            return 1
    for test in failed:
        print(f"UNSTEADY: {test} failed once, and passed {TIMES} times alone. It has to be mended.", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
