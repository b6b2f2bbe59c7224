"""``Any`` in a public signature needs a reason: a type checker cannot help the user there."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).parents[2]
SOURCES = [ROOT / "core/src", *sorted((ROOT / "integrations").glob("*/src"))]

# The names of parameters that may be Any, by reason.
PARAMETERS = {
    "json": {
        *(
            "answer",
            "ask",
            "arguments",
            "content",
            "data",
            "fields",
            "input",
            "inputs",
            "on_input",
            "on_partial",
            "on_question",
            "output",
        ),
        *("partial", "piece", "result", "returned", "saved", "schema", "value", "values"),
        *("change", "new", "old", "place"),
    },
    "user object": {"args", "args_schema", "chain", "context", "crew", "flow", "found", "graph", "task"},
    "framework's own type": {
        *(
            "apps",
            "buffer",
            "checkpointer",
            "config",
            "store",
            "formatted_answer",
            "gen",
            "handler",
            "interrupt",
            "kwargs",
        ),
        *("dft", "mcps", "request", "runtime", "timeout", "told"),
    },
    "passed on to a function that checks it": {"about", "options"},
    "a type argument that may be any type": {
        "connection",
        "endpoint",
        "method",
        "handlers",
        "on_failure",
        "run",
        "threads",
        "work",
    },
}
# The names of functions whose result may be Any, by reason.
RESULTS = {
    "json": {
        *(
            "aask",
            "abatch",
            "advance",
            "ainvoke",
            "arun",
            "ask",
            "astream",
            "batch",
            "call",
            "call_tool_stream",
            "content_of",
            "content_of_parts",
            "from_struct",
            "plain",
            "require_auth",
            "follow",
        ),
        *(
            "give_turn",
            "invoke",
            "news",
            "on_plain_task",
            "on_turn",
            "output",
            "output_value",
            "partials",
            "question_of",
        ),
        *("request", "result", "result_of", "run", "saved", "saved_by_task", "settle", "stream", "to_json", "work"),
        *("checked_json", "json_from", "mended"),
        *("answer_of", "answer_from_text", "changed", "difference", "find", "plain_form"),
        *("on_question", "read_answer", "read_line", "request_input", "take_positional"),
    },
    "user object": {"bind", "input_of", "load", "renamed_names"},
    "framework's own type": {
        *("awrap_model_call", "awrap_tool_call", "find_shell", "handle_feedback", "handle_feedback_async"),
        *("encode_default", "hooks", "last_messages", "wrap_model_call", "wrap_tool_call"),
    },
    "what a database returns": {"execute", "rows", "share", "wait"},
    "a type argument that may be any type": {"follow_threads", "parameters_of", "submit", "traced_handler"},
}


class Signature(NamedTuple):
    """A place in a signature where a type stands: ``name`` is that of a parameter, or of a function for its result."""

    where: str
    name: str
    annotation: ast.expr


def public_functions(body: list[ast.stmt]) -> Iterator[tuple[str, ast.FunctionDef | ast.AsyncFunctionDef]]:
    functions = [node for node in body if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef))]
    overloaded = {function.name for function in functions if "overload" in decorators(function)}
    for node in body:
        if isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
            for name, function in public_functions(node.body):
                yield f"{node.name}.{name}", function
        elif isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
            hidden = node.name.startswith("_") and node.name != "__init__"
            # A type checker sees the overloads, or the parameters of the other function, instead of these.
            replaced = node.name in overloaded and "overload" not in decorators(node)
            if not hidden and not replaced:
                yield node.name, node


def decorators(function: ast.FunctionDef | ast.AsyncFunctionDef) -> set[str]:
    called = [d.func if isinstance(d, ast.Call) else d for d in function.decorator_list]
    return {d.id for d in called if isinstance(d, ast.Name)}


def public_signatures() -> tuple[list[Signature], list[Signature]]:
    parameters: list[Signature] = []
    results: list[Signature] = []
    for source in SOURCES:
        for path in sorted(source.rglob("*.py")):
            module = path.relative_to(source).with_suffix("").parts
            if any(part.startswith("_") and part != "__init__" for part in module):
                continue
            for name, function in public_functions(ast.parse(path.read_text(encoding="utf-8")).body):
                where, given = f"{'.'.join(module)}.{name}", function.args
                if function.returns is not None:
                    results.append(Signature(where, function.name, function.returns))
                if "parameters_of" in decorators(function):
                    continue
                listed = [*given.posonlyargs, *given.args, *given.kwonlyargs, given.vararg, given.kwarg]
                parameters += [
                    Signature(f"{where}({a.arg})", a.arg, a.annotation) for a in listed if a and a.annotation
                ]
    return parameters, results


def is_any(annotation: ast.expr) -> bool:
    """Whether it leaves out a type, where Python has a way to write one."""
    written = ast.unparse(annotation)
    if written in ("dict[str, Any]", "Mapping[str, Any]", "Callable[..., Any]"):  # a JSON object, a user's function
        return False
    if written.startswith("Coroutine[Any, Any, ") and isinstance(annotation, ast.Subscript):
        assert isinstance(annotation.slice, ast.Tuple)
        return is_any(annotation.slice.elts[2])
    if isinstance(annotation, ast.Name):
        return annotation.id == "Any"
    return any(is_any(child) for child in ast.iter_child_nodes(annotation) if isinstance(child, ast.expr))


def check(signatures: list[Signature], allowed: dict[str, set[str]]) -> None:
    found = [signature for signature in signatures if is_any(signature.annotation)]
    names = set[str]().union(*allowed.values())
    without_reason = [f"{each.where}: {ast.unparse(each.annotation)}" for each in found if each.name not in names]
    assert not without_reason, (
        f"write a type, or add the name with its reason ({len(found)} of {len(signatures)} are Any)"
    )
    outdated = sorted(names - {each.name for each in found})
    assert not outdated, "these are not Any any more: take them out of the list"


def test_a_parameter_is_any_only_for_a_reason() -> None:
    check(public_signatures()[0], PARAMETERS)


def test_a_result_is_any_only_for_a_reason() -> None:
    check(public_signatures()[1], RESULTS)
