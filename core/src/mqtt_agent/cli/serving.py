"""The verb ``serve``: serves functions, a tool server, an agent, or an object of a framework, by its name in a module.

An adapter says what it can serve with an entry point of the group ``mqtt_agent.servables``: a function that gets the
object and the options, and returns an endpoint, or None when the object is not for this adapter.
"""

from __future__ import annotations

import importlib.metadata
import importlib.util
import inspect
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, cast

import typer

from mqtt_agent.adapting.factories import kinds_of
from mqtt_agent.cli.applying import ServeOptions, is_perhaps_a_factory
from mqtt_agent.cli.options import load
from mqtt_agent.cli.settings import UsageError
from mqtt_agent.cli.verbs import Session, verb
from mqtt_agent.display.frames import user_frames
from mqtt_agent.endpoints.running import Service, only_imported
from mqtt_agent.errors import AgentIdTaken, SessionTakenOver
from mqtt_agent.tools import ToolServer

__all__ = ["add_to"]

_GROUP = "mqtt_agent.servables"


def add_to(app: typer.Typer) -> None:
    """Add the verb ``serve``."""
    verb(app, "serve")(serve)


async def serve(
    session: Session,
    target: Annotated[str, typer.Argument(metavar="MODULE[:OBJECT]", help="A module or a file, and what it holds.")],
    server: Annotated[
        str | None, typer.Option(help="The server's name, for functions and tools. Default: the module's name.")
    ] = None,
    description: Annotated[
        str,
        typer.Option(help="What the agent does, for a graph, a chain, a team or a crew: peers read it on its card."),
    ] = "",
    replica: Annotated[
        str | None, typer.Option(help="The name of this replica, for functions and tools. Default: a new name.")
    ] = None,
    read_only: Annotated[
        bool, typer.Option("--read-only", help="The functions change nothing, so they may run twice.")
    ] = False,
    capability: Annotated[
        list[str] | None,
        typer.Option("--capability", metavar="WORD", help="A word by which peers find the agent. May be repeated."),
    ] = None,
    store: Annotated[
        str | None,
        typer.Option(
            metavar="FILE|URL",
            help="Where the agent's tasks are kept: an SQLite file, or postgresql://USER@HOST/DATABASE. Default: a "
            "file in your state folder.",
        ),
    ] = None,
    max_attempts: Annotated[
        int | None, typer.Option(min=1, help="How often the work on a task may begin. Default: no limit.")
    ] = None,
    max_concurrency: Annotated[int | None, typer.Option(min=1, help="How many tasks or calls run at once.")] = None,
    pool: Annotated[
        bool, typer.Option("--pool", help="Several processes serve this agent; needs --store postgresql://...")
    ] = False,
    reload: Annotated[
        bool, typer.Option("--reload", help="Start again when a Python file in this folder changes.")
    ] = False,
) -> int:
    """Serve plain functions as tools, a ToolServer, an Agent, or a framework's graph, tools or crew, until Ctrl-C."""
    broker = session.settings.place.broker
    if isinstance(broker, str):
        os.environ["MQTT_AGENT_BROKER"] = broker  # for a server or an agent of the module
    if reload:
        return _serve_again_and_again()
    own = ServeOptions(
        server, description, replica, read_only, tuple(capability or ()), store, max_attempts, max_concurrency, pool
    )
    module, found = _found(target)
    try:
        endpoint = _endpoint(session, module, found, target, own)
    except TypeError as error:
        raise UsageError(f"{target} cannot be served: {error}") from error
    if endpoint is None:
        raise UsageError(
            f"{target} cannot be served: {_described(found)} is no function, ToolServer or Agent, and "
            "no installed adapter serves it. Install the adapter of its framework, such as langchain-mqtt-agent"
        )
    await endpoint.serve_until_signal()
    return 0


def _found(target: str) -> tuple[str, Any]:
    """The module's name, and the object that the target names."""
    path, _, name = target.partition(":")
    if path.endswith(".py"):
        file = Path(path)
        if not file.is_file():
            raise UsageError(f"there is no file {file}")
        sys.path.insert(0, str(file.absolute().parent))
        path = file.stem
    module = path.rpartition(".")[2]
    sys.path.insert(0, os.getcwd())
    if not path or importlib.util.find_spec(path.partition(".")[0]) is None:
        raise UsageError(f"there is no module {path!r} in {os.getcwd()} or among the installed packages")
    importing = only_imported.set(True)  # a program that ends with server.run() can be served too
    try:
        return module, load(f"{path}:{name}") if name else _only_endpoint(importlib.import_module(path))
    except UsageError:
        raise
    except ValueError as error:
        raise UsageError(str(error)) from error
    except Exception as error:  # of the user's module
        more = _package_hint(target, error) or _colon_hint(path, error)
        raise UsageError(
            f"{path} cannot be imported: {_explained(error)}; --debug shows the traceback{more}"
        ) from error
    finally:
        only_imported.reset(importing)


def _package_hint(target: str, error: Exception) -> str:
    """What to write when a file is part of a package, and so cannot be imported alone."""
    file, _, name = target.partition(":")
    if not file.endswith(".py") or "relative import" not in str(error):
        return ""
    steps = [*Path(file).parent.parts[-1:], Path(file).stem]
    better = ".".join(steps) + (f":{name}" if name else "")
    return f". The file is part of a package: name its module, as in {better}, in the folder that contains the package"


def _colon_hint(path: str, error: Exception) -> str:
    """What to write when the object was named with a dot in place of the colon."""
    module, _, name = path.rpartition(".")
    wrong = isinstance(error, ModuleNotFoundError) and error.name == path and hasattr(sys.modules.get(module), name)
    return f"; did you mean '{module}:{name}'?" if wrong else ""


def _explained(error: Exception) -> str:
    """An error of the user's module, with the place where it happened."""
    frames = user_frames(error.__traceback__)
    place = f" ({frames[-1].filename}, line {frames[-1].lineno})" if frames else ""
    return f"{type(error).__name__}: {error}{place}"


def _only_endpoint(module: Any) -> Any:
    """The one server or agent of a module; or its public functions, if it has no server and no agent.

    Raises:
        UsageError: The module has several of them, or nothing to serve.
    """
    everything = cast("dict[str, Any]", vars(module))
    members = {name: each for name, each in everything.items() if not name.startswith("_")}
    endpoints = {name: each for name, each in members.items() if isinstance(each, Service)}
    if len({id(each) for each in endpoints.values()}) > 1:
        raise UsageError(
            f"module {module.__name__} has several: name one, as in {module.__name__}:{next(iter(endpoints))}"
        )
    if endpoints:
        return next(iter(endpoints.values()))
    functions = [each for each in members.values() if inspect.isfunction(each) and each.__module__ == module.__name__]
    if not functions:
        raise UsageError(f"module {module.__name__} has no ToolServer, no Agent and no function to serve")
    return functions


def _endpoint(session: Session, module: str, found: Any, target: str, own: ServeOptions) -> Service | None:
    advice = session.out.advice
    if isinstance(found, Service):
        own.for_module(target, session.settings)
        advice[SessionTakenOver] = "stop the other process, or write another name into the module"
        return found
    functions = cast("list[Any]", found) if isinstance(found, list) else [found]
    name = own.server or session.settings.name or module
    adapted = _adapted(session, functions[0] if len(functions) == 1 else found, name, target, own)
    if adapted is not None:
        other = "choose another name with --as NAME"
        advice[SessionTakenOver] = f"stop the other process, or {other}"
        advice[AgentIdTaken] = f"stop the other process, {other}, or give all of them --pool and one PostgreSQL --store"
        return adapted
    if not functions or not all(inspect.isroutine(each) for each in functions):
        return None
    tools = ToolServer(name, **_place(session), **own.for_functions(target))
    advice[SessionTakenOver] = "stop the other process, or choose another name with --replica NAME"
    for function in functions:
        tools.tool(read_only=own.read_only or None)(function)
    if target.endswith(f":{functions[0].__name__}") and is_perhaps_a_factory(functions[0]):
        session.out.note(
            f"{functions[0].__name__} is served as a tool. If it makes a crew, a graph or a team, say so with a return "
            f"annotation, such as 'def {functions[0].__name__}() -> Crew:'"
        )
    return tools


def _place(session: Session) -> dict[str, Any]:
    client_id = session.settings.client_id
    return {**session.settings.place.as_arguments(), **({} if client_id is None else {"client_id": client_id})}


def _adapted(session: Session, found: Any, name: str, target: str, own: ServeOptions) -> Service | None:
    """The endpoint that an installed adapter makes of an object, or None.

    Raises:
        TypeError: An adapter knows the object, and cannot serve it.
        UsageError: An option does not apply to the object.
    """
    if all(kind.__module__ in ("builtins", "types") for kind in kinds_of(found)):
        return None  # plain functions: no adapter has to be imported
    for entry in importlib.metadata.entry_points(group=_GROUP):
        try:
            make: Callable[..., Service | None] = entry.load()
        except Exception as error:  # a broken distribution must not take the other adapters away
            session.out.note(f"mqtt-agent: the adapter {entry.name!r} cannot be loaded: {error}", "red")
            continue
        with own.explained(target):
            endpoint = make(found, name=name, description=own.description, **_place(session), **own.for_adapter)
        if endpoint is not None:
            own.check_adapted(target)
            return endpoint
    return None


def _serve_again_and_again() -> int:
    """Run this command without ``--reload`` in a child process, anew after each change of a Python file."""
    try:
        from watchfiles import PythonFilter, run_process
    except ImportError:
        raise UsageError("--reload needs the package watchfiles: pip install watchfiles") from None
    words = [sys.executable, "-m", "mqtt_agent.cli", *(each for each in sys.argv[1:] if each != "--reload")]
    run_process(os.getcwd(), target=" ".join(map(_quoted, words)), target_type="command", watch_filter=PythonFilter())
    return 0


def _quoted(word: str) -> str:
    import shlex

    return shlex.quote(word)


def _described(found: Any) -> str:
    return f"{type(found).__module__}.{type(found).__name__}"
