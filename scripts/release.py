"""Makes a release, up to the upload: versions, changelog, wheels and sdists, a commit and a tag.

    python scripts/release.py [--dry-run] VERSION

The working tree must be clean and on the branch main. The script pushes and uploads nothing. Its last lines say how to
push and to upload. ``--dry-run`` does the same in a temporary copy of the tree, and the tree need not be clean then.
"""

from __future__ import annotations

import argparse
import datetime
import re
import shutil
import sys
import tempfile
from pathlib import Path

from distributions import FOLDERS, build, check, run, version, version_file
from packaging.version import InvalidVersion, Version

ROOT = Path(__file__).parents[1]
BRANCH = "main"


def main() -> None:
    """Make the release that the command line asks for."""
    parser = argparse.ArgumentParser(prog="release", description=__doc__.splitlines()[0])
    parser.add_argument("--dry-run", action="store_true", help="work on a temporary copy")
    parser.add_argument("version", metavar="VERSION", help="such as 0.2.0")
    options = parser.parse_args()
    if not options.dry_run:
        release(ROOT, options.version)
        return
    with tempfile.TemporaryDirectory(prefix="mqtt-agent-release-") as folder:
        release(copied(Path(folder, "copy")), options.version)
    print("This was a dry run in a temporary copy, which has been deleted. Nothing in this repository has changed.")


def copied(copy: Path) -> Path:
    """Make a new repository with the current files of this one, and return its folder."""
    ignored = [Path(line).name for line in (ROOT / ".gitignore").read_text(encoding="utf-8").split()]
    shutil.copytree(ROOT, copy, ignore=shutil.ignore_patterns(".git", *ignored))
    run("git", "init", "--quiet", "--initial-branch", BRANCH, cwd=copy)
    for name, value in {"user.name": "dry run", "user.email": "dry-run@localhost", "commit.gpgsign": "false"}.items():
        run("git", "config", name, value, cwd=copy)
    run("git", "add", "--all", cwd=copy)
    run("git", "commit", "--quiet", "--message", "Copy", cwd=copy)
    return copy


def release(root: Path, number: str) -> None:
    """Do everything but the upload. When a step fails, restore the files."""
    tag = f"v{number}"
    check_state(root, number, tag)
    folder = root / "dist" / number
    shutil.rmtree(folder, ignore_errors=True)
    try:
        changed = [*set_versions(root, number), date_changelog(root, number)]
        build(root, folder)
        check(root, folder)
        files = sorted(folder.iterdir())
        run(sys.executable, "-m", "twine", "check", "--strict", *files)
        run("git", "commit", "--quiet", "--message", f"Release {number}", "--", *changed, cwd=root)
    except BaseException:
        run("git", "checkout", "--quiet", "HEAD", "--", ".", cwd=root)
        raise
    run("git", "tag", "--annotate", tag, "--message", f"Release {number}", cwd=root)
    print(f"Version {number} is committed and tagged as {tag}. Built in {folder}:")
    print(*(f"  {file.name}" for file in files), sep="\n")
    print("Nothing was pushed or uploaded. What to do next:")
    print("  1. Look at the commit:   git show")
    print(f"  2. Push both:            git push origin {BRANCH} {tag}")
    print("  3. When CI has passed:   make wheels")
    print(f"  4. Upload the files:     .venv/bin/twine upload dist/{number}/*")
    print(f"To undo it before the push: git tag --delete {tag} && git reset --hard HEAD~1")


def check_state(root: Path, number: str, tag: str) -> None:
    """Exit with a message unless this version can be released from here."""
    try:
        wanted = Version(number)
    except InvalidVersion:
        sys.exit(f"{number!r} is not a version; write it as 0.2.0")
    if str(wanted) != number:
        sys.exit(f"write {number!r} in its normal form: {wanted}")
    for package in FOLDERS:
        if wanted < Version(now := version(root, package)):
            sys.exit(f"{package} has version {now} already; {number} must not be lower")
    branch = run("git", "branch", "--show-current", cwd=root).strip()
    if branch != BRANCH:
        sys.exit(f"a release is made from the branch {BRANCH}, and this is {branch or 'no branch'}")
    if changes := run("git", "status", "--porcelain", cwd=root):
        sys.exit(f"the working tree is not clean; commit or remove first:\n{changes}")
    if run("git", "tag", "--list", tag, cwd=root):
        sys.exit(f"the tag {tag} exists already")


def set_versions(root: Path, number: str) -> list[Path]:
    """Write the version into all distributions, and into the adapters' requirement of the core.

    Returns:
        The changed files.
    """
    wanted = Version(number)
    # Before 1.0, a new minor version may break programs that use the previous version.
    limit = f"{wanted.major + 1}" if wanted.major else f"0.{wanted.minor + 1}"
    changed: list[Path] = []
    for package, path in FOLDERS.items():
        replace(version_file(root, package), r'^__version__ = ".+"$', f'__version__ = "{number}"')
        changed.append(version_file(root, package))
        if package != "mqtt_agent":
            project = root / path / "pyproject.toml"
            replace(project, r'"mqtt-agent(\[[a-z,]+\])?>=[^",]+,<[^"]+"', rf'"mqtt-agent\1>={number},<{limit}"')
            changed.append(project)
    return changed


def date_changelog(root: Path, number: str) -> Path:
    """Move the unreleased entries to a dated section, and leave the section "Unreleased" empty. Return the file."""
    changelog = root / "CHANGELOG.md"
    if not re.search(r"^## Unreleased\n+(?!## |\Z)", changelog.read_text(encoding="utf-8"), re.MULTILINE):
        sys.exit("CHANGELOG.md has no entry under '## Unreleased', so there is nothing to release")
    today = datetime.date.today().isoformat()
    replace(changelog, r"^## Unreleased$", f"## Unreleased\n\n## {number} ({today})")
    return changelog


def replace(file: Path, pattern: str, new: str) -> None:
    """Replace the only match of a pattern in a file. A group of the pattern is ``\\1`` in the new text."""
    text, count = re.subn(
        pattern,
        lambda match: new.replace("\\1", match[1] or "") if match.re.groups else new,
        file.read_text(encoding="utf-8"),
        flags=re.MULTILINE,
    )
    if count != 1:
        sys.exit(f"{file} has {count} matches of {pattern}, and exactly one is expected")
    file.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
