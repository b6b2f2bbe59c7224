"""What a factory makes, as its return annotation says: so an adapter recognizes a factory without calling it."""

from __future__ import annotations

import inspect
from typing import Any, cast, get_args

from typing_extensions import get_type_hints

__all__ = ["descends", "kinds_of"]


def kinds_of(found: Any) -> tuple[type[object], ...]:
    """The classes of an object, or the classes of what a function makes.

    Args:
        found: An object, a list of objects, a class, or a function with a return annotation.

    Returns:
        The class of the object, the classes of the elements, the class itself, or the classes that the return
        annotation names. Empty when there is no return annotation, or when it cannot be read.
    """
    if isinstance(found, type):
        return (cast("type[object]", found),)
    if isinstance(found, (list, tuple)):
        elements = cast("list[object]", found)
        return tuple(type(each) for each in elements)
    if not inspect.isroutine(found):
        return (type(cast("object", found)),)
    try:
        hint = get_type_hints(found).get("return")
    except Exception:  # an annotation that names what does not exist at run time
        return ()
    return tuple(_classes(hint))


def _classes(hint: Any) -> list[type]:
    arguments = [each for argument in get_args(hint) for each in _classes(argument)]
    origin = getattr(hint, "__origin__", hint)
    return [*([origin] if isinstance(origin, type) else []), *arguments]


def descends(kind: type, package: str, *names: str) -> bool:
    """Whether a class is one of these classes of a package, or inherits from one. The package is not imported.

    Args:
        kind: The class.
        package: The name of the top-level package.
        names: The names of the classes there.
    """
    return any(each.__name__ in names and each.__module__.partition(".")[0] == package for each in kind.__mro__)
