"""Puts each mutation into a copy of the core, runs the tests that must notice it, and prints which were caught.

Usage: ``python -m tests.mutations.run [--unchecked] [WORD ...]``. With words, only the mutations whose name or file
contains one of them are tried. The exit code is 1 when a mutation survives, or cannot be tried.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from .mutations import MUTATIONS, Mutation

ROOT = Path(__file__).parents[2]
SOURCE = ROOT / "core" / "src"
TESTS = ROOT / "tests"
DEADLINE = 180.0
"""Seconds that the tests of one mutation may take. A mutation that makes them hang is caught."""
PLUGINS = ("pytest_asyncio.plugin", "pytest_timeout", "no:cacheprovider")
START = """
import sys, pytest
code = pytest.main(sys.argv[2:])
core = sys.modules.get("mqtt_agent")
sys.exit(code if core and core.__file__.startswith(sys.argv[1]) else 99)
"""
CAUGHT, SURVIVED = "caught", "SURVIVED"


def mutated(mutation: Mutation, source: str) -> str:
    """Put a mutation into the text of its file.

    Raises:
        ValueError: The mutation's old text does not occur exactly once.
    """
    count = source.count(mutation.old)
    if count != 1:
        raise ValueError(f"the old text occurs {count} times in {mutation.file}")
    return source.replace(mutation.old, mutation.new)


def run_tests(folder: Path, nodes: Sequence[str]) -> subprocess.CompletedProcess[str]:
    """Run tests with the core in a folder. The exit code is pytest's, or 99 when the tests used another core."""
    options = ["-x", "-q", "-rs", "--timeout=60", *(f"-p{plugin}" for plugin in PLUGINS)]
    environment = {
        **os.environ,
        "PYTHONPATH": str(folder),
        # Files with byte code could be taken for those of another mutation, which was written in the same second.
        "PYTHONDONTWRITEBYTECODE": "1",
        "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1",  # importing all installed plugins takes longer than most of the tests
    }
    return subprocess.run(
        [sys.executable, "-c", START, str(folder), *options, *(str(TESTS / node) for node in nodes)],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
        timeout=DEADLINE,
    )


def outcome(mutation: Mutation) -> str:
    """Try a mutation. Returns "caught", or what went wrong."""
    with tempfile.TemporaryDirectory(prefix="mqtt-agent-mutation-") as parent:
        folder = Path(parent) / "src"
        shutil.copytree(SOURCE, folder)
        target = folder / "mqtt_agent" / mutation.file
        try:
            target.write_text(mutated(mutation, target.read_text(encoding="utf-8")), encoding="utf-8")
        except ValueError as error:
            return f"DOES NOT APPLY: {error}"
        try:
            done = run_tests(folder, mutation.tests)
        except subprocess.TimeoutExpired:
            return CAUGHT  # the tests hang
    if done.returncode == 1:
        return CAUGHT
    return SURVIVED if done.returncode == 0 else f"CANNOT BE TRIED: {_last_lines(done)}"


def unmutated_problem(chosen: Sequence[Mutation]) -> str | None:
    """Why the mutations cannot be judged: a test fails without them. None when all tests pass."""
    nodes = sorted({node for mutation in chosen for node in mutation.tests})
    for start in range(0, len(nodes), 10):
        try:
            done = run_tests(SOURCE, nodes[start : start + 10])
        except subprocess.TimeoutExpired:
            return f"ten of them need more than {DEADLINE:g} s"
        if done.returncode != 0 or "SKIPPED" in done.stdout:
            return _last_lines(done)
    return None


def _last_lines(done: subprocess.CompletedProcess[str]) -> str:
    return "\n".join([*done.stdout.splitlines()[-15:], *done.stderr.splitlines()[-5:]])


def main() -> None:
    """Try the chosen mutations, one after the other."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("words", nargs="*", help="only mutations whose name or file contains one of these words")
    parser.add_argument("--unchecked", action="store_true", help="do not first run the tests without a mutation")
    options = parser.parse_args()
    chosen = [m for m in MUTATIONS if not options.words or any(w in m.name or w in m.file for w in options.words)]
    if not chosen:
        sys.exit("no mutation has one of these words in its name or file")
    if not options.unchecked:
        print(f"running the tests of {len(chosen)} mutations without a mutation ...", flush=True)
        if problem := unmutated_problem(chosen):
            sys.exit(f"without a mutation, these tests must pass, and none may be skipped:\n{problem}")
    failed: list[str] = []
    for mutation in chosen:
        began = time.monotonic()
        result = outcome(mutation)
        print(f"{result:9} {time.monotonic() - began:4.0f} s  {mutation.file:32} {mutation.name}", flush=True)
        if result != CAUGHT:
            failed.append(mutation.name)
    print(f"{len(chosen) - len(failed)} of {len(chosen)} mutations were caught")
    if failed:
        sys.exit("\n".join(["not caught:", *failed]))


if __name__ == "__main__":
    main()
