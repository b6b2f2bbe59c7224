"""What a LangChain tool shows to its callers, what the server gives it beside, and what no server can give it."""

from __future__ import annotations

import functools
import inspect
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, get_args, get_origin

from langchain_core.runnables import RunnableConfig
from langchain_core.tools import BaseTool, InjectedToolArg, InjectedToolCallId, StructuredTool, Tool
from langchain_core.tools.base import get_all_basemodel_annotations
from pydantic import BaseModel
from typing_extensions import get_type_hints

from langchain_mqtt_agent.tool import RemoteTool

__all__ = ["Offer", "offer_of"]

_VARIADIC = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
_INJECTED_BY_NAME = ("run_manager", "callbacks")
"""LangChain gives its callbacks to parameters of these names."""


@dataclass(frozen=True)
class Offer:
    """A tool as its callers see it.

    Attributes:
        schema: The JSON Schema of the arguments.
        shown: The names of the arguments in the schema.
        hidden: The names of arguments that no caller can give.
        takes_others: Whether the tool takes arguments that the schema does not name.
        is_model: Whether the tool checks its arguments with a pydantic model.
        call_id: Whether the tool takes the id of the call.
        runtime: The argument into which LangGraph injects its ``ToolRuntime``; None when there is none.
        store: The argument into which LangGraph injects its store; None when there is none.
    """

    schema: dict[str, Any]
    shown: frozenset[str]
    hidden: frozenset[str]
    takes_others: bool
    is_model: bool
    call_id: bool
    runtime: str | None
    store: str | None

    def unknown(self, arguments: Mapping[str, Any]) -> list[str]:
        """The names of the arguments that the tool does not take from a caller."""
        return [name for name in arguments if name not in self.shown and (name in self.hidden or not self.takes_others)]


def offer_of(tool: BaseTool, *, has_store: bool) -> Offer:
    """Read a tool's definition.

    Args:
        tool: The tool.
        has_store: Whether the server has a store for ``InjectedStore``.

    Raises:
        TypeError: The tool needs something that no tool server has. The message names the tool.
    """
    functions = _functions_of(tool)
    parameters = {name: each for function in functions for name, each in _parameters(function).items()}
    annotations = {name: each.annotation for name, each in parameters.items()}
    fields = _fields_of(tool)
    annotations.update(fields)
    _refuse_results(tool, functions)
    _refuse_injections(tool, annotations, parameters, has_store)
    variadic = {name for name, each in parameters.items() if each.kind in _VARIADIC}
    configs = {name for name, annotation in annotations.items() if _is_config(annotation)}
    schema = _schema_of(tool, variadic | configs)
    shown = frozenset(schema["properties"])
    for name in sorted(shown & parameters.keys()):
        if _is_marked(parameters[name].annotation, InjectedToolArg) or _is(parameters[name].annotation, "ToolRuntime"):
            raise _cannot_be_served(
                tool,
                f"its schema shows the argument {name!r}, into which LangChain injects a value",
                "rename one of them",
            )
    takes_others = _takes_others(tool, schema, parameters)
    if not takes_others:
        schema.setdefault("additionalProperties", False)
    named = {name for name in (*parameters, *fields, *_INJECTED_BY_NAME) if name not in variadic}
    return Offer(
        schema=schema,
        shown=shown,
        hidden=frozenset() if isinstance(tool, RemoteTool) else frozenset(named - shown),
        takes_others=takes_others,
        is_model=isinstance(tool.args_schema, type),
        call_id=any(_is_marked(annotation, InjectedToolCallId) for annotation in annotations.values()),
        runtime=next((name for name, annotation in annotations.items() if _is(annotation, "ToolRuntime")), None),
        store=next((name for name, annotation in annotations.items() if _is(annotation, "InjectedStore")), None),
    )


def _functions_of(tool: BaseTool) -> list[Callable[..., Any]]:
    """The functions that do the tool's work. A remote tool has none here: it gets all its arguments as one dict."""
    if isinstance(tool, RemoteTool):
        return []
    if isinstance(tool, (StructuredTool, Tool)):
        return [each for each in (tool.func, tool.coroutine) if each is not None]
    return [each for each in (tool._run, tool._arun) if each.__func__ is not BaseTool._arun]  # pyright: ignore


def _parameters(function: Callable[..., Any]) -> dict[str, inspect.Parameter]:
    found = inspect.signature(function).parameters
    hints = _hints_of(function)
    return {name: each.replace(annotation=hints.get(name, each.annotation)) for name, each in found.items()}


def _hints_of(function: Callable[..., Any]) -> dict[str, Any]:
    target: Any = inspect.unwrap(function)
    while isinstance(target, functools.partial):
        target = inspect.unwrap(target.func)
    try:
        return get_type_hints(target if inspect.isroutine(target) else type(target).__call__, include_extras=True)
    except Exception:  # an annotation that cannot be resolved stays a text, as in LangChain
        return {}


def _fields_of(tool: BaseTool) -> dict[str, Any]:
    """The names and annotations in the pydantic model of the arguments, without aliases."""
    return dict(get_all_basemodel_annotations(tool.args_schema)) if isinstance(tool.args_schema, type) else {}


def _schema_of(tool: BaseTool, left_out: set[str]) -> dict[str, Any]:
    """The JSON Schema without the arguments that LangChain injects."""
    if isinstance(tool, Tool) and tool.args_schema is None:
        return {"type": "object", "properties": dict(tool.args), "required": list(tool.args)}
    shown: Any = tool.tool_call_schema
    if isinstance(shown, dict):
        return {"type": "object", "properties": {}, **shown}
    schema: dict[str, Any] = shown.model_json_schema() if issubclass(shown, BaseModel) else shown.schema()
    schema = {"type": "object", "properties": {}, **schema}
    schema["properties"] = {name: each for name, each in schema["properties"].items() if name not in left_out}
    if "required" in schema:
        schema["required"] = [name for name in schema["required"] if name not in left_out]
    if "RunnableConfig" in (schema.get("$defs") or {}):
        schema["$defs"] = {name: each for name, each in schema["$defs"].items() if name != "RunnableConfig"}
    return schema


def _takes_others(tool: BaseTool, schema: dict[str, Any], parameters: Mapping[str, inspect.Parameter]) -> bool:
    model: Any = tool.args_schema
    if isinstance(model, type):
        if issubclass(model, BaseModel):
            return model.model_config.get("extra") == "allow"
        return getattr(model.__config__.extra, "value", None) == "allow"  # a model of pydantic 1
    if schema.get("additionalProperties") is False:
        return False
    by_keyword = any(each.kind is inspect.Parameter.VAR_KEYWORD for each in parameters.values())
    return isinstance(tool, RemoteTool) or (by_keyword and isinstance(model, dict))


def _refuse_injections(
    tool: BaseTool, annotations: Mapping[str, Any], parameters: Mapping[str, inspect.Parameter], has_store: bool
) -> None:
    for name, annotation in annotations.items():
        if _is(annotation, "InjectedState"):
            raise _cannot_be_served(
                tool,
                f"its argument {name!r} gets the state of a graph (InjectedState), and a tool server has no graph",
                "serve the graph with serve_graph(), or take what the tool needs as an argument",
            )
        if _is(annotation, "InjectedStore") and not has_store:
            raise _cannot_be_served(
                tool, f"its argument {name!r} gets a store (InjectedStore)", "pass store= to serve_tools()"
            )
        known = any(_is(annotation, each) for each in ("InjectedStore", "ToolRuntime"))
        if known or _is_marked(annotation, InjectedToolCallId) or not _is_marked(annotation, InjectedToolArg):
            continue
        if _is_required(tool, name, parameters.get(name)):
            raise _cannot_be_served(
                tool,
                f"its argument {name!r} is injected (InjectedToolArg), and a remote call cannot inject it",
                "give the argument a default, or serve a tool without this argument",
            )


def _refuse_results(tool: BaseTool, functions: list[Callable[..., Any]]) -> None:
    types: Any = sys.modules.get("langgraph.types")
    if types is None:
        return
    for function in functions:
        returns = _hints_of(function).get("return")
        if _mentions(returns, types.Command):
            raise _cannot_be_served(
                tool,
                "it returns a Command, and a caller of a tool has no graph that the Command could update",
                "return the value itself, or serve the graph with serve_graph()",
            )
        target: Any = inspect.unwrap(function)
        code, known = getattr(target, "__code__", None), getattr(target, "__globals__", {})
        if code is not None and any(known.get(name) is types.interrupt for name in code.co_names):
            raise _cannot_be_served(
                tool,
                "it calls interrupt(), and a tool call cannot wait for an answer",
                "serve the graph with serve_graph(), where an interrupt becomes a question, or take the answer as an"
                " argument",
            )


def _cannot_be_served(tool: BaseTool, why: str, advice: str) -> TypeError:
    return TypeError(f"tool {tool.name!r} cannot be served: {why}: {advice}")


def _is_required(tool: BaseTool, name: str, parameter: inspect.Parameter | None) -> bool:
    model: Any = tool.args_schema
    if isinstance(model, type):
        fields: dict[str, Any] = model.model_fields if issubclass(model, BaseModel) else model.__fields__
        found = fields.get(name)
        if found is not None:
            return bool(found.is_required() if hasattr(found, "is_required") else found.required)
    return parameter is not None and parameter.default is inspect.Parameter.empty


def _is_marked(annotation: Any, marker: type) -> bool:
    """Whether an annotation is ``Annotated`` with a marker."""
    return any(isinstance(each, marker) or _is_subclass(each, marker) for each in get_args(annotation)[1:])


def _is(annotation: Any, name: str) -> bool:
    """Whether an annotation is a type of LangGraph, contains this type, or is marked with it."""
    prebuilt: Any = sys.modules.get("langgraph.prebuilt.tool_node")
    return prebuilt is not None and _mentions(annotation, getattr(prebuilt, name))


def _is_config(annotation: Any) -> bool:
    return annotation is RunnableConfig or RunnableConfig in get_args(annotation)


def _mentions(annotation: Any, wanted: type) -> bool:
    if (
        isinstance(annotation, wanted)
        or _is_subclass(annotation, wanted)
        or _is_subclass(get_origin(annotation), wanted)
    ):
        return True
    return any(_mentions(each, wanted) for each in get_args(annotation))


def _is_subclass(value: Any, kind: type) -> bool:
    return isinstance(value, type) and issubclass(value, kind)
