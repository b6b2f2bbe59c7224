"""The distributions that are published: their folders, and how their files are built and checked."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

FOLDERS = {
    "mqtt_agent": "core",
    "langchain_mqtt_agent": "integrations/langchain",
    "autogen_mqtt_agent": "integrations/autogen",
    "crewai_mqtt_agent": "integrations/crewai",
    "mcp_mqtt_agent": "integrations/mcp",
    "a2a_mqtt_agent": "integrations/a2a",
}
"""The folder of each package. The name of the package is also the name of the distribution, with ``_`` for ``-``."""


def version_file(root: Path, package: str) -> Path:
    """The file that contains the version of a distribution."""
    return root / FOLDERS[package] / "src" / package / "version.py"


def version(root: Path, package: str) -> str:
    """The version of a distribution."""
    text = version_file(root, package).read_text(encoding="utf-8")
    match = re.search(r'^__version__ = "(.+)"$', text, re.MULTILINE)
    if match is None:
        sys.exit(f'{version_file(root, package)} has no line like __version__ = "1.2.3"')
    return match[1]


def build(root: Path, folder: Path) -> None:
    """Build the sdist of each distribution, and the wheel from the sdist, with the build tools of this environment."""
    for path in FOLDERS.values():
        run(sys.executable, "-m", "build", "--no-isolation", "--outdir", folder, root / path)


def check(root: Path, folder: Path) -> None:
    """Exit with a message unless each distribution has a wheel and an sdist with its version and the licence."""
    licence = (root / "LICENSE").read_bytes()
    for package in FOLDERS:
        name = f"{package}-{version(root, package)}"
        files = {
            f"{name}-py3-none-any.whl": (f"{name}.dist-info/licenses/LICENSE", f"{name}.dist-info/METADATA"),
            f"{name}.tar.gz": (f"{name}/LICENSE", f"{name}/PKG-INFO"),
        }
        for file, (licence_inside, metadata_inside) in files.items():
            if not (folder / file).exists():
                sys.exit(f"{file} was not built; {folder} has {sorted(path.name for path in folder.iterdir())}")
            held = contents(folder / file)
            if held.get(licence_inside) != licence:
                sys.exit(f"{file} does not have the file LICENSE of the repository as {licence_inside}")
            metadata = held[metadata_inside].decode().splitlines()
            for line in (f"Version: {version(root, package)}", "License-Expression: MIT", "License-File: LICENSE"):
                if line not in metadata:
                    sys.exit(f"{file} does not say {line!r} in {metadata_inside}")


def contents(file: Path) -> dict[str, bytes]:
    """Read a wheel or an sdist: the content of each file, by the file's name."""
    if file.suffix == ".whl":
        with zipfile.ZipFile(file) as wheel:
            return {name: wheel.read(name) for name in wheel.namelist()}
    with tarfile.open(file) as sdist:
        members = [(member.name, sdist.extractfile(member)) for member in sdist.getmembers()]
        return {name: opened.read() for name, opened in members if opened is not None}


def run(*command: object, cwd: Path | None = None, **environment: str) -> str:
    """Run a program, and return its standard output. When it fails, exit with its command and its whole output."""
    done = subprocess.run(
        [str(part) for part in command],
        cwd=cwd,
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode != 0:
        sys.exit(f"{' '.join(map(str, command))[:300]}\n{done.stdout}{done.stderr}")
    return done.stdout
