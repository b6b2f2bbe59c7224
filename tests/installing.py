"""What the tests install beside the project's own environment, once for all processes that run tests."""

from __future__ import annotations

import fcntl
import hashlib
import subprocess
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
