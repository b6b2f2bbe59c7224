"""Code of users, as type checkers see it: right code has the types that it should have, each mistake is refused."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

SAMPLES = Path(__file__).parent / "samples"
FILES = sorted(path.name for path in SAMPLES.glob("*.py"))
MISTAKES = {
    (path.name, number)
    for path in SAMPLES.glob("bad_*.py")
    for number, line in enumerate(path.read_text().splitlines(), 1)
    if line.endswith("# refused")
}

pytestmark = pytest.mark.timeout(300)  # without its cache, mypy reads all of LangChain and AutoGen


def run(*command: str) -> str:
    done = subprocess.run([sys.executable, "-m", *command], cwd=SAMPLES, capture_output=True, text=True, check=False)
    assert done.returncode == 1, done.stdout + done.stderr  # 1: some lines were refused; 2: the checker failed
    return done.stdout


def compare(refused: dict[tuple[str, int], str]) -> None:
    assert not {place: refused[place] for place in refused.keys() - MISTAKES}, "these lines should be accepted"
    assert not MISTAKES - refused.keys(), "these lines should be refused"


@pytest.mark.long  # `make lint` checks the same with pyright
def test_mypy_strict_accepts_the_good_samples_and_refuses_each_mistake(request: pytest.FixtureRequest) -> None:
    cache = request.config.cache
    assert cache is not None
    output = run("mypy", "--strict", "--no-error-summary", f"--cache-dir={cache.mkdir('mypy')}", *FILES)
    errors = re.findall(r"^([\w/.]+):(\d+): error: (.*)$", output, re.MULTILINE)
    compare({(name, int(line)): message for name, line, message in errors})


def test_pyright_accepts_the_good_samples_and_refuses_each_mistake() -> None:
    output = run("pyright", "--project", "pyrightconfig.json", "--pythonpath", sys.executable, "--outputjson")
    errors = json.loads(output)["generalDiagnostics"]
    compare({(Path(e["file"]).name, e["range"]["start"]["line"] + 1): e["message"] for e in errors})


def test_each_package_has_a_good_and_a_bad_sample() -> None:
    packages = {"core", "sync", "langchain", "autogen"}
    assert set(FILES) == {f"{kind}_{package}.py" for kind in ("good", "bad") for package in packages}
    assert {name for name, _ in MISTAKES} == {f"bad_{package}.py" for package in packages}
