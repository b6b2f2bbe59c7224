"""What the tests install beside the project's own environment, once for all processes that run tests."""

from __future__ import annotations

import fcntl
import hashlib
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import brokers

INSTALLED_WITHIN = 200.0


def install_once(wanted: Path, into: Path, install: Callable[[], None]) -> None:
    """Call ``install``, unless the folder ``into`` already has what the file ``wanted`` names."""
    version, mark = hashlib.sha256(wanted.read_bytes()).hexdigest(), into / ".installed"
    name = hashlib.sha256(str(into).encode()).hexdigest()[:16]
    with (Path(tempfile.gettempdir()) / f"mqtt-agent-install-{name}").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # until the file is closed
        if mark.is_file() and mark.read_text() == version:
            return
        install()
        mark.write_text(version)


def install_python(requirements: Path, folder: Path) -> Path:
    """Make a Python environment of its own, unless it exists already.

    Args:
        requirements: The file that says what the environment has.
        folder: Where the environment is.

    Returns:
        The environment's Python.
    """
    python = folder / "bin" / "python"

    def install() -> None:
        shutil.rmtree(folder, ignore_errors=True)
        if uv := brokers.find_program("uv"):
            run(uv, "venv", "--quiet", "--python", sys.executable, str(folder), cwd=folder.parent)
            run(uv, "pip", "install", "--quiet", "--python", str(python), "-r", str(requirements), cwd=folder.parent)
        else:
            run(sys.executable, "-m", "venv", str(folder), cwd=folder.parent)
            run(str(python), "-m", "pip", "install", "--quiet", "-r", str(requirements), cwd=folder.parent)

    install_once(requirements, folder, install)
    return python


def run(*command: str, cwd: Path) -> None:
    """Run a command that installs something.

    Raises:
        RuntimeError: The command failed; the error contains its output.
    """
    done = subprocess.run(
        command,
        cwd=cwd,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=INSTALLED_WITHIN,
        preexec_fn=brokers.die_with_parent,
    )
    if done.returncode:
        raise RuntimeError(f"{' '.join(command)} in {cwd} failed with {done.returncode}:\n{done.stdout}")
