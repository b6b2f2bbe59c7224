"""Checks the configuration files in pages of Markdown with the linters of their formats.

    .venv/bin/python scripts/check_manifests.py [PAGE.md ...]

Each block of YAML goes through yamllint. A Compose file is also compared with the schema of Compose, and objects of
Kubernetes with the schemas of Kubernetes, where unknown keys are errors. The line numbers are those of the page.
"""

from __future__ import annotations

import re
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import yaml

ROOT = Path(__file__).parents[1]
BIN = Path(sys.executable).parent
STYLE = (
    "{extends: default, rules: {line-length: {max: 120}, document-start: disable, empty-lines: disable,"
    " comments: {min-spaces-from-content: 1}}}"
)
BLOCK = re.compile(r"^```yaml\n(.*?)^```", re.MULTILINE | re.DOTALL)


def blocks(page: Path) -> Iterator[str]:
    """The blocks of YAML of a page, each at its place: empty lines stand for the text before the block."""
    text = page.read_text(encoding="utf-8")
    for found in BLOCK.finditer(text):
        yield "\n" * text.count("\n", 0, found.start(1)) + found[1]


def linters(text: str) -> list[list[str]]:
    """The commands that check a block, without the name of the file."""
    commands = [["yamllint", "--strict", "-d", STYLE]]
    parts = [part for part in yaml.safe_load_all(text) if isinstance(part, dict)]
    if any("services" in part for part in parts):
        commands.append(["check-jsonschema", "--builtin-schema", "vendor.compose-spec"])
    if parts and all("apiVersion" in part and "kind" in part for part in parts):
        commands.append(["kubernetes-validate", "--strict"])
    return commands


def main(pages: list[Path]) -> int:
    checked = failed = 0
    with tempfile.TemporaryDirectory() as folder:
        for page in pages:
            for text in blocks(page):
                file = Path(folder) / f"{page.stem}.yaml"
                file.write_text(text, encoding="utf-8")
                for command in linters(text):
                    ran = subprocess.run([BIN / command[0], *command[1:], file], capture_output=True, text=True)
                    checked += 1
                    if ran.returncode:
                        failed += 1
                        print(f"{page}: {command[0]}:\n{ran.stdout}{ran.stderr}", file=sys.stderr)
    print(f"{checked} checks of YAML in {len(pages)} pages: {f'{failed} failed' if failed else 'good'}")
    return 1 if failed or not checked else 0


if __name__ == "__main__":
    sys.exit(main([Path(each) for each in sys.argv[1:]] or [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]))
