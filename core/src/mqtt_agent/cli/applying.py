"""Which options of the verb ``serve`` apply to what is served. An option that would have no effect is an error."""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Collection, Generator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from mqtt_agent.cli.settings import Settings, UsageError

__all__ = ["ServeOptions", "is_perhaps_a_factory"]

_FOR_FUNCTIONS = frozenset({"server", "replica", "read_only", "max_concurrency"})
_NOT_FOR_ADAPTERS = frozenset({"server", "description", "read_only"})  # an adapter always gets a name and a description
_UNEXPECTED = re.compile(r"unexpected keyword argument '(\w+)'")


@dataclass(frozen=True)
class ServeOptions:
    """The options of the verb ``serve`` itself, by the names of the arguments that they become."""

    server: str | None = None
    description: str = ""
    replica: str | None = None
    read_only: bool = False
    capabilities: tuple[str, ...] = ()
    store: str | None = None
    max_attempts: int | None = None
    max_concurrency: int | None = None
    pool: bool = False

    @property
    def given(self) -> dict[str, Any]:
        """The options that the user has given."""
        return {name: value for name, value in vars(self).items() if value}

    def for_functions(self, target: str) -> dict[str, Any]:
        """The arguments of the tool server that offers plain functions, besides its name.

        Raises:
            UsageError: An option is for agents only.
        """
        why = (
            "it is served as a tool, and this option is for agents. A function that makes a crew, a graph or a team "
            "needs a return annotation, such as '-> Crew', and the adapter of its framework"
        )
        _refuse(target, set(self.given) - _FOR_FUNCTIONS, why)
        return {name: value for name, value in self.given.items() if name in ("replica", "max_concurrency")}

    @property
    def for_adapter(self) -> dict[str, Any]:
        """The arguments of an adapter's endpoint, besides its name and its description.

        Raises:
            UsageError: The store of a pool is none that several processes can use.
        """
        if self.pool and not (self.store or "").startswith(("postgresql://", "postgres://")):
            raise UsageError("--pool needs a store that all its processes use: --store postgresql://USER@HOST/DATABASE")
        return {name: value for name, value in self.given.items() if name not in _NOT_FOR_ADAPTERS}

    def check_adapted(self, target: str) -> None:
        """Check the options for what an adapter serves.

        Raises:
            UsageError: An option is for plain functions only.
        """
        _refuse(target, set(self.given) & {"read_only"}, "it is for plain functions")

    def for_module(self, target: str, settings: Settings) -> None:
        """Check the options for an endpoint that a module has made itself.

        Raises:
            UsageError: An option was given which the module decides.
        """
        why = "the module has made this server or agent, so write the value into the module"
        _refuse(target, {*self.given, *(settings.explicit - {"broker"})}, why)

    @contextmanager
    def explained(self, target: str) -> Generator[None]:
        """Turn the error of a function that does not know the argument of an option into an error of the command line.

        Raises:
            UsageError: The option does not apply to the target.
        """
        try:
            yield
        except TypeError as error:
            unknown = _UNEXPECTED.search(str(error))
            if unknown is not None and unknown[1] in self.given:
                _refuse(target, {unknown[1]}, "what is served here has no such setting")
            raise


def is_perhaps_a_factory(function: Callable[..., object]) -> bool:
    """Whether a function may be meant to make a crew or a graph: it takes nothing, and does not say what it returns."""
    try:
        signature = inspect.signature(function)
    except (TypeError, ValueError):
        return False
    return not signature.parameters and signature.return_annotation is inspect.Signature.empty


def _refuse(target: str, names: Collection[str], why: str) -> None:
    if names:
        flags = " and ".join(sorted(_flag(each) for each in names))
        raise UsageError(f"{flags} {'does' if len(names) == 1 else 'do'} not apply to {target}: {why}")


def _flag(name: str) -> str:
    return "--capability" if name == "capabilities" else f"--{name.replace('_', '-')}"
