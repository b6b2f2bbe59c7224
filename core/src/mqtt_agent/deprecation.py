"""Old names of classes and arguments work for one more version; their use gives a ``DeprecationWarning``."""

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

_PACKAGE = __name__.partition(".")[0]


def warn_renamed(old: str, new: str) -> None:
    """Warn about the use of an old name. The warning names the line of the user's code.

    Args:
        old: The old name, as it stands in the user's code.
        new: The new name, as the user should write it.
    """
    message = f"{old} is called {new} now; the old name will be removed in the next version"
    warnings.warn(message, DeprecationWarning, stacklevel=_level_of_user() + 1)


def _level_of_user() -> int:
    """Count the frames from the caller of this function up to the first frame outside of the project's packages."""
    # The blocking classes and the adapters add frames between the user's code and the old name.
    frame, level = sys._getframe(1), 0  # pyright: ignore[reportPrivateUsage]
    while frame.f_back is not None and frame.f_globals.get("__name__", "").partition(".")[0].endswith(_PACKAGE):
        frame, level = frame.f_back, level + 1
    return level


def renamed_names(module: str, names: Mapping[str, str]) -> Callable[[str], Any]:
    """Make the ``__getattr__`` of a module whose classes or functions have new names.

    Args:
        module: The module's ``__name__``.
        names: The new name for each old name.

    Returns:
        The ``__getattr__`` function. It raises ``AttributeError`` for a name that the module never had.
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
