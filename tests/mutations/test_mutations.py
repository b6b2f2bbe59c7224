"""The list of mutations fits the core and the tests, so that ``make mutations`` can try all of them."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import pytest

from .mutations import MUTATIONS, Mutation
from .run import SOURCE, TESTS, mutated, run_tests


@pytest.mark.parametrize("mutation", MUTATIONS, ids=lambda mutation: mutation.name)
def test_a_mutation_applies_once_and_its_tests_exist(mutation: Mutation) -> None:
    source = (SOURCE / "mqtt_agent" / mutation.file).read_text(encoding="utf-8")
    changed = mutated(mutation, source)
    assert changed != source
    compile(changed, mutation.file, "exec")
    assert mutation.tests
    for node in mutation.tests:
        path, *names = node.partition("[")[0].split("::")
        written = re.findall(r"(?:def|class) (\w+)", (TESTS / path).read_text(encoding="utf-8"))
        assert set(names) <= set(written), f"there is no test {node}"


def test_each_mutation_has_a_name_of_its_own() -> None:
    names = [mutation.name for mutation in MUTATIONS]
    assert len(names) >= 30
    assert sorted(set(names)) == sorted(names)


def test_the_tests_of_a_mutation_run_with_the_changed_copy(tmp_path: Path) -> None:
    shutil.copytree(SOURCE, tmp_path / "src")
    changed = tmp_path / "src" / "mqtt_agent" / "wire" / "topics.py"
    changed.write_text(changed.read_text().replace("/call", "/called"))
    done = run_tests(tmp_path / "src", ["wire/test_topics.py::test_the_topics_are_those_of_the_specification"])
    assert done.returncode == 1, done.stdout + done.stderr
    assert "/called" in done.stdout
