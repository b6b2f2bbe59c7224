"""What a Python function takes: its parameters as a caller can give them, also of wrappers and partial functions."""

from __future__ import annotations

import contextlib
import functools
import inspect
import sys
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, cast, get_args

from typing_extensions import get_type_hints

from mqtt_agent.tools.serving.context import SyncToolContext, ToolContext

__all__ = ["VARIADIC", "Parameters", "parameters_of"]

VARIADIC = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)


@dataclass(frozen=True)
class Parameters:
    """The parameters of a handler.

    Attributes:
        listed: The parameters without the one for the context, with their annotations resolved.
        context: The name of the parameter for the context, if there is one.
        returns: The annotation of the result.
        positional: The parameters that cannot be given by name, in their order.
    """

    listed: list[inspect.Parameter]
    context: str | None
    returns: Any
    positional: list[inspect.Parameter]

    def take_positional(self, values: dict[str, Any]) -> list[Any]:
        """Take the values that cannot be given by name out of all values.

        Args:
            values: The values by name. Those of the positional parameters are removed.

        Returns:
            The values in their order. A parameter before the last of them that has no value gets its default.
        """
        last = max((place for place, each in enumerate(self.positional, 1) if each.name in values), default=0)
        return [values.pop(each.name, each.default) for each in self.positional[:last]]


def parameters_of(tool: str, handler: Callable[..., Any]) -> Parameters:
    """Find out what a handler takes.

    Args:
        tool: The tool's name, for errors.
        handler: The handler.

    Raises:
        TypeError: The annotations cannot be resolved, Python does not know the parameters, or the handler is a method
            without its object.
    """
    hints = _hints(tool, handler)
    shown, own = _signatures(tool, handler)
    _refuse_unbound(tool, handler, shown)
    by_name = _takes_names(shown, own)
    listed: list[inspect.Parameter] = []
    positional: list[inspect.Parameter] = []
    context: str | None = None
    for parameter in shown.parameters.values():
        annotation = hints.get(parameter.name, parameter.annotation)
        if parameter.kind is inspect.Parameter.POSITIONAL_ONLY or not (by_name or parameter.kind in VARIADIC):
            positional.append(parameter)
        if any(_is_context(part) for part in (annotation, *get_args(annotation))):
            context = parameter.name
        else:
            listed.append(parameter.replace(annotation=annotation))
    return Parameters(listed, context, hints.get("return"), positional)


def _hints(tool: str, handler: Callable[..., Any]) -> dict[str, Any]:
    """The annotations of a handler, resolved.

    Raises:
        TypeError: They cannot be resolved.
    """
    target: Any = handler
    while isinstance(target, functools.partial):
        target = target.func
    target = target if inspect.isroutine(target) else type(target).__call__
    try:
        try:
            return get_type_hints(target, include_extras=True)
        except NameError:
            # Annotations that are texts do not see the names of the function around the handler, nor names that are
            # imported for type checkers alone. Only the schema of the result needs the annotation of the result.
            plain = inspect.unwrap(target)
            parameters = {name: each for name, each in plain.__annotations__.items() if name != "return"}
            around = _names_around(plain)
            with contextlib.suppress(NameError):
                return get_type_hints(target, localns=around, include_extras=True)
            return get_type_hints(_annotated(parameters), plain.__globals__, around, include_extras=True)
    except Exception as error:  # Python evaluates annotations to resolve them, which may raise anything
        raise TypeError(f"tool {tool!r}: its annotations cannot be resolved ({error})") from error


def _names_around(function: Any) -> dict[str, Any]:
    """The local names of the functions of the same module that run now: one of them usually defines the function."""
    names: dict[str, Any] = {}
    frame = sys._getframe()  # pyright: ignore[reportPrivateUsage]
    while (frame := frame.f_back) is not None:
        if frame.f_globals is function.__globals__ and frame.f_locals is not frame.f_globals:
            names = {**frame.f_locals, **names}
    return names


def _annotated(annotations: dict[str, Any]) -> Callable[[], None]:
    def function() -> None: ...

    function.__annotations__ = annotations
    return function


def _signatures(tool: str, handler: Callable[..., Any]) -> tuple[inspect.Signature, inspect.Signature]:
    """The signature that callers see, and the handler's own signature.

    They differ for a wrapper that passes on whatever it gets (``*args``, ``**kwargs``): callers see what it wraps. A
    wrapper that names its parameters may take others than what it wraps, and so may a partial function.
    """
    handler = _without_wrapped(handler)
    try:
        followed = inspect.signature(handler)
    except ValueError as error:  # some functions and classes that are written in C
        raise TypeError(f"tool {tool!r}: {error}: write a function with parameters around it") from error
    try:
        own = inspect.signature(handler, follow_wrapped=False)
    except ValueError:  # a wrapper that is written in C, such as that of functools.cache
        return followed, followed
    passes_on = any(each.kind in VARIADIC for each in own.parameters.values())
    return (followed if passes_on else own), own


def _without_wrapped(handler: Any) -> Any:
    """A partial function without ``__wrapped__``, which names the function without the values that are bound."""
    if not isinstance(handler, functools.partial):
        return handler
    partial = cast("functools.partial[Any]", handler)
    return functools.partial(_without_wrapped(partial.func), *partial.args, **partial.keywords)


def _takes_names(shown: inspect.Signature, own: inspect.Signature) -> bool:
    """Whether the parameters can be given by name. A wrapper that takes only ``*args`` cannot pass names on."""
    kinds = {each.kind for each in own.parameters.values()}
    passes_places = inspect.Parameter.VAR_POSITIONAL in kinds and inspect.Parameter.VAR_KEYWORD not in kinds
    return shown is own or not passes_places or shown == own


def _refuse_unbound(tool: str, handler: Callable[..., Any], shown: inspect.Signature) -> None:
    """Raise an error for a method without its object, of which every caller would have to send the object.

    Raises:
        TypeError: The handler is such a method.
    """
    within = getattr(handler, "__qualname__", "").rpartition(".")[0]
    first = next(iter(shown.parameters), None)
    if inspect.isfunction(handler) and first in ("self", "cls") and within and not within.endswith("<locals>"):
        short = within.rpartition(".")[2]
        raise TypeError(
            f"tool {tool!r}: the handler is a method of the class {short}, without an object: make an object, and pass "
            f"its method, for example add_tool({tool!r}, {short.lower()}.{handler.__name__})"
        )


def _is_context(annotation: Any) -> bool:
    return isinstance(annotation, type) and issubclass(annotation, (ToolContext, SyncToolContext))
