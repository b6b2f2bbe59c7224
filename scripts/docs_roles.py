"""Converts the docstrings to Markdown: roles, such as :class:`Agent`, become links, which mkdocstrings then checks."""

from __future__ import annotations

import re
from typing import Any

import griffe

_ROLE = re.compile(r":(?:class|meth|attr|func|mod|exc|data):`~?([\w.]+)`")
_PUBLIC = "mqtt_agent"


class Roles(griffe.Extension):
    """Rewrites the docstrings of a package after the package is loaded."""

    def __init__(self) -> None:
        super().__init__()
        self._public: dict[str, str] = {}
        self._seen: set[str] = set()
        self._package: Any = None

    def on_package(self, *, pkg: griffe.Module, **kwargs: Any) -> None:
        """Rewrite the docstrings of a package that griffe has loaded."""
        if pkg.path == _PUBLIC:
            self._package = pkg
            self._public = {name: f"{_PUBLIC}.{name}" for name in pkg.members if not name.startswith("_")}
            errors = pkg.members["errors"].members
            self._public |= {name: f"{_PUBLIC}.errors.{name}" for name, each in errors.items() if not each.is_alias}
        self._rewrite(pkg)

    def _rewrite(self, thing: griffe.Object | griffe.Alias) -> None:
        if thing.is_alias or thing.path in self._seen:
            return
        self._seen.add(thing.path)
        if thing.docstring is not None:
            text = _ROLE.sub(lambda role: self._link(role[1], thing), thing.docstring.value)
            # mkdocstrings shows "Example" as prose and "Examples" as code, and Markdown needs no second colon.
            thing.docstring.value = re.sub(r"::$", ":", text.replace("Example:\n", "Examples:\n"), flags=re.MULTILINE)
        for member in list(thing.members.values()):
            self._rewrite(member)

    def _link(self, name: str, thing: griffe.Object | griffe.Alias) -> str:
        shown = name.rsplit(".", 1)[-1] if name.startswith(f"{_PUBLIC}.") else name
        target = self._target(name, thing)
        return f"[`{shown}`][{target}]" if target else f"`{shown}`"

    def _target(self, name: str, thing: griffe.Object | griffe.Alias) -> str | None:
        name = re.sub(rf"^{_PUBLIC}\.(?:\w+\.)*(?=[A-Z])", "", name)
        first, _, rest = name.partition(".")
        package = thing.package
        if package.path != _PUBLIC and not rest and first in map(str, package.exports or ()):
            return f"{package.path}.{first}"
        if first in self._public:
            return self._public[first] + (f".{rest}" if rest and self._is_shown(first, rest) else "")
        around: Any = thing
        while around is not None and not around.is_class:
            around = around.parent
        if around is None or around.name not in self._public or not self._is_shown(around.name, name):
            return None
        return f"{self._public[around.name]}.{name}"

    def _is_shown(self, owner: str, member: str) -> bool:
        """Whether a class has this member, with a docstring; only such members have an anchor on the page."""
        try:
            found: Any = self._package[self._public[owner].partition(".")[2]].all_members[member]
            return found.docstring is not None
        except (KeyError, griffe.GriffeError):
            return False
