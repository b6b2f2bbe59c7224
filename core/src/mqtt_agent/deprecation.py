"""Old names keep working for one version, and each use of an old name gives a ``DeprecationWarning``."""

from __future__ import annotations

import functools
import sys
import warnings
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

from typing_extensions import ParamSpec

__all__ = ["renamed_arguments", "renamed_names", "warn_renamed"]

P = ParamSpec("P")
R = TypeVar("R")


def warn_renamed(old: str, new: str, *, stacklevel: int = 2) -> None:
    """Warn about the use of an old name.

    Args:
        old: The old name, as the user wrote the name.
        new: What to write instead.
        stacklevel: How many frames above the caller of this function the user's code is; 1 is the caller itself.
    """
    message = f"{old} is called {new} now; the old name will be removed in the next version"
    warnings.warn(message, DeprecationWarning, stacklevel=stacklevel + 1)


def renamed_names(module: str, names: Mapping[str, str]) -> Callable[[str], Any]:
    """Make the ``__getattr__`` of a module whose classes or functions have new names.

    Args:
        module: The module's ``__name__``.
        names: The new name for each old name.
    """

    def find(name: str) -> Any:
        new = names.get(name)
        if new is None:
            raise AttributeError(f"module {module!r} has no attribute {name!r}")
        warn_renamed(f"{module}.{name}", f"{module}.{new}")
        return getattr(sys.modules[module], new)

    return find


def renamed_arguments(**names: str) -> Callable[[Callable[P, R]], Callable[P, R]]:
    """Decorate a function whose keyword arguments have new names.

    Args:
        names: The new name for each old name: ``old="new"``.

    Raises:
        TypeError: A caller of the decorated function gives an argument under both names.
    """

    def decorate(function: Callable[P, R]) -> Callable[P, R]:
        @functools.wraps(function)
        def wrapper(*args: P.args, **kwargs: P.kwargs) -> R:
            for old in names.keys() & kwargs.keys():
                new = names[old]
                if new in kwargs:
                    raise TypeError(f"{old} is the old name of {new}: give one of them")
                warn_renamed(f"{old}=", f"{new}=")
                kwargs[new] = kwargs.pop(old)
            return function(*args, **kwargs)

        return wrapper

    return decorate
