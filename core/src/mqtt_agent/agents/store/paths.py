"""The default path of an agent's SQLite file, and the folders of other paths."""

from __future__ import annotations

import hashlib
import re
from pathlib import Path

from platformdirs import user_state_path

from mqtt_agent.errors import StoreError
from mqtt_agent.wire.identifiers import normalize_namespace, validate_identifier

__all__ = ["default_store_path", "make_folder"]

_UNSAFE = re.compile(r"[^A-Za-z0-9_-]+")
_READABLE = 40


def default_store_path(namespace: str, agent_id: str) -> Path:
    """The path of the file for one agent's tasks, in the user's state directory.

    The file's name contains the namespace and the agent id, shortened and without unsafe characters. Two agents may
    have this part in common, and some file systems ignore case. So the name ends with a hash of the full names.

    Raises:
        InvalidIdentifier: The namespace or the agent id cannot be used in topics.
    """
    namespace = normalize_namespace(namespace)
    validate_identifier(agent_id, "agent id")
    digest = hashlib.sha256(f"{namespace}/{agent_id}".encode()).hexdigest()[:16]
    readable = "-".join(_UNSAFE.sub("-", name)[:_READABLE] for name in (namespace, agent_id))
    return _default_folder() / f"{readable}-{digest}.db"


def make_folder(path: Path) -> None:
    """Make the folder of a store's file if it is the default folder. Any other folder must exist.

    Otherwise the folder of a mistyped path would be made, and the agent would not find its earlier tasks there.

    Args:
        path: The absolute path of the file.

    Raises:
        StoreError: The folder does not exist, and is not the default folder.
        OSError: The folder cannot be made.
    """
    folder = path.parent
    if folder.is_dir():
        return
    if folder == _default_folder().absolute():
        folder.mkdir(parents=True, exist_ok=True)
        return
    missing = folder
    while not (missing.parent.exists() or missing.parent == missing):
        missing = missing.parent
    for each in (missing, missing.parent):
        if each.exists() and not each.is_dir():
            raise StoreError(f"task store {path}: {each} is a file and not a folder; choose another path")
    near = _near(missing)
    advice = f"did you mean {near}? If not, make the folder" if near else "make the folder"
    raise StoreError(f"task store {path}: there is no folder {missing}; {advice}, or choose another path")


def _default_folder() -> Path:
    return user_state_path("mqtt-agent", appauthor=False)


def _near(missing: Path) -> Path | None:
    """The folder beside a missing folder whose name is most similar."""
    import difflib  # only this error needs the module

    try:
        names = [each.name for each in missing.parent.iterdir() if each.is_dir()]
    except OSError:
        return None
    near = difflib.get_close_matches(missing.name, names, n=1)
    return missing.parent / near[0] if near else None
