"""What a package index is given: the licence, what a distribution says of itself, and how a release is made."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from packaging.requirements import Requirement

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib  # pyright: ignore[reportMissingImports]

ROOT = Path(__file__).parents[1]
FOLDERS = [
    "core",
    "integrations/langchain",
    "integrations/autogen",
    "integrations/crewai",
    "integrations/mcp",
    "integrations/a2a",
]
each_distribution = pytest.mark.parametrize("folder", FOLDERS)


def project(folder: str) -> dict[str, Any]:
    return tomllib.loads((ROOT / folder / "pyproject.toml").read_text())["project"]


@each_distribution
def test_a_distribution_has_the_licence_of_the_repository(folder: str) -> None:
    assert (ROOT / folder / "LICENSE").read_text() == (ROOT / "LICENSE").read_text()


@each_distribution
def test_a_distribution_names_each_python_that_it_runs_on(folder: str) -> None:
    requires = Requirement(f"python{project(folder)['requires-python']}").specifier
    named = [line.removeprefix("Programming Language :: Python :: ") for line in project(folder)["classifiers"]]
    assert [each for each in named if each.startswith("3.")] == [
        f"3.{minor}" for minor in range(15) if requires.contains(f"3.{minor}")
    ]


@each_distribution
def test_a_readme_has_no_link_that_breaks_outside_of_the_repository(folder: str) -> None:
    readme = (ROOT / folder / "README.md").read_text()
    prose = re.sub(r"^```.*?^```", "", readme, flags=re.MULTILINE | re.DOTALL)
    targets = re.findall(r"\]\(\s*([^)\s]+)|^\[[^\]]+\]:\s*(\S+)|(?:src|href)=[\"']([^\"']+)", prose, re.MULTILINE)
    assert [target for groups in targets for target in groups if target and not target.startswith("https://")] == []


@each_distribution
def test_a_readme_says_how_to_install_the_distribution(folder: str) -> None:
    lines = (ROOT / folder / "README.md").read_text().splitlines()
    assert any(line.startswith(f"pip install {project(folder)['name']}") for line in lines)


def copy_of_the_scripts(folder: Path) -> Path:
    """A repository with as much as a release looks at before it changes anything."""
    (folder / "scripts").mkdir()
    for name in ("release.py", "distributions.py"):
        shutil.copy(ROOT / "scripts" / name, folder / "scripts")
    for version in (*ROOT.glob("core/src/*/version.py"), *ROOT.glob("integrations/*/src/*/version.py")):
        copy = folder / version.relative_to(ROOT)
        copy.parent.mkdir(parents=True)
        shutil.copy(version, copy)
    git = ["git", "-c", "user.name=test", "-c", "user.email=test@localhost", "-c", "commit.gpgsign=false"]
    for command in (["init", "--quiet", "--initial-branch", "main"], ["add", "."], ["commit", "--quiet", "-m", "All"]):
        subprocess.run([*git, *command], cwd=folder, check=True, timeout=60)
    return folder


def released(root: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(root / "scripts" / "release.py"), *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=170, check=False)


def test_nothing_is_released_from_a_tree_that_is_not_clean(tmp_path: Path) -> None:
    root = copy_of_the_scripts(tmp_path)
    (root / "new.txt").write_text("not committed")
    done = released(root, "9.0.0")
    assert done.returncode == 1
    assert "the working tree is not clean" in done.stderr
    assert "new.txt" in done.stderr


def test_nothing_is_released_from_another_branch(tmp_path: Path) -> None:
    root = copy_of_the_scripts(tmp_path)
    subprocess.run(["git", "switch", "--quiet", "--create", "other"], cwd=root, check=True, timeout=60)
    assert "a release is made from the branch main, and this is other" in released(root, "9.0.0").stderr


@pytest.mark.parametrize(
    ("version", "problem"),
    [("next", "is not a version"), ("v9.0.0", "normal form: 9.0.0"), ("0.0.1", "must not be lower")],
)
def test_a_version_that_cannot_be_released_is_refused(version: str, problem: str, tmp_path: Path) -> None:
    root = copy_of_the_scripts(tmp_path)
    assert problem in released(root, version).stderr


@pytest.mark.timeout(180)
def test_a_dry_run_makes_all_files_of_a_release_and_changes_nothing() -> None:
    def state() -> dict[Path, bytes]:
        files = [ROOT / "CHANGELOG.md", *ROOT.glob("core/**/version.py"), *ROOT.glob("integrations/**/version.py")]
        return {path: path.read_bytes() for path in (*files, *ROOT.glob("integrations/*/pyproject.toml"))}

    before = state()
    done = released(ROOT, "--dry-run", "9.8.7")
    assert (done.returncode, done.stderr) == (0, "")
    for package in (
        "mqtt_agent",
        "langchain_mqtt_agent",
        "autogen_mqtt_agent",
        "crewai_mqtt_agent",
        "mcp_mqtt_agent",
        "a2a_mqtt_agent",
    ):
        assert f"  {package}-9.8.7-py3-none-any.whl\n" in done.stdout
        assert f"  {package}-9.8.7.tar.gz\n" in done.stdout
    assert "Nothing was pushed or uploaded." in done.stdout
    assert state() == before
    assert not (ROOT / "dist" / "9.8.7").exists()
