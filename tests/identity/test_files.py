"""Files that must not be cut off when the disk is full. A limit for the size of files stands for the full disk."""

from __future__ import annotations

import contextlib
import errno
import os
import resource
from collections.abc import Generator
from pathlib import Path

import pytest
from mqtt_agent.identity.files import write_new_secret, write_whole


@contextlib.contextmanager
def full_disk() -> Generator[None]:
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (10, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_a_file_keeps_its_text_when_the_new_text_cannot_be_written(tmp_path: Path) -> None:
    path = tmp_path / "trusted.jwks"
    path.write_text("before")
    path.chmod(0o640)
    with full_disk(), pytest.raises(OSError, match="trusted.jwks"):
        write_whole(path, "much longer than the limit")
    assert path.read_text() == "before"
    assert [each.name for each in tmp_path.iterdir()] == ["trusted.jwks"]
    write_whole(path, "after")
    assert (path.read_text(), path.stat().st_mode & 0o777) == ("after", 0o640)


def test_a_link_to_a_file_stays_a_link(tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(tmp_path / "file")
    write_whole(tmp_path / "link", "text")
    assert (tmp_path / "link").is_symlink()
    assert (tmp_path / "file").read_text() == "text"


@pytest.mark.parametrize(("what", "code"), [("os.replace", errno.EBUSY), ("tempfile.mkstemp", errno.EROFS)])
def test_a_file_that_nobody_can_replace_is_written_in_its_place(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, what: str, code: int
) -> None:
    """As for a file that is mounted into a container by itself, and in a folder that is not writable."""

    def refuse(*args: object, **options: object) -> None:
        raise OSError(code, os.strerror(code))

    path = tmp_path / "trusted.jwks"
    path.write_text("before, and longer")
    monkeypatch.setattr(what, refuse)
    write_whole(path, "after")
    assert path.read_text() == "after"
    assert [each.name for each in tmp_path.iterdir()] == ["trusted.jwks"]
    with pytest.raises(OSError, match=os.strerror(code)):
        write_whole(tmp_path / "new.jwks", "text")


def test_no_part_of_a_secret_stays_when_it_cannot_be_written(tmp_path: Path) -> None:
    with full_disk(), pytest.raises(OSError, match="too large"):
        write_new_secret(tmp_path / "key.jwk", "much longer than the limit")
    assert list(tmp_path.iterdir()) == []
    write_new_secret(tmp_path / "key.jwk", "whole")
    assert (tmp_path / "key.jwk").stat().st_mode & 0o777 == 0o600
    with pytest.raises(FileExistsError):
        write_new_secret(tmp_path / "key.jwk", "again")
