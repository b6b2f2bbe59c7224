"""Makes the reference of the command line from the command line itself, so that no verb and no option is missing."""

from __future__ import annotations

import re
from typing import Any

import typer
from mkdocs.structure.files import File, Files
from mqtt_agent.cli.app import make_app
from mqtt_agent.cli.verbs import SHARED

PAGE = "reference/cli.md"
START = """# Commands

All verbs of `mqtt-agent`, with their arguments and options. [The command line](../cli.md) explains how to use them.
`mqtt-agent VERB --help` shows the same text in a terminal. `bridge` and `mcp` come with `mcp-mqtt-agent`.
"""


def on_files(files: Files, config: Any) -> Files:
    """Add the page."""
    group: Any = typer.main.get_command(make_app())
    shared = {name.rstrip("_") for name in SHARED}
    example = next(each for each in group.commands.values() if shared <= options_of(each).keys())
    parts = [START, "## Options of every verb", table([options_of(example)[name] for name in shared_in_order()])]
    parts.append("A verb that does not connect to a broker has only `--json` and `--debug` of these options.")
    for name, command in sorted(group.commands.items()):
        parts += described(f"mqtt-agent {name}", command, shared, "##")
    files.append(File.generated(config, PAGE, content="\n\n".join(parts) + "\n"))
    return files


def shared_in_order() -> list[str]:
    return [name.rstrip("_") for name in SHARED]


def options_of(command: Any) -> dict[str, Any]:
    """The parameters of a verb by their names."""
    return {each.name.rstrip("_"): each for each in command.params}


def described(title: str, command: Any, shared: set[str], heading: str) -> list[str]:
    """The sections of a verb, and of the verbs below it."""
    parts = [f"{heading} {title}", prose(command.help or "")]
    below = getattr(command, "commands", {})
    for name, each in below.items():
        parts += described(f"{title} {name}", each, shared, heading + "#")
    if below:
        return parts
    own = [each for name, each in options_of(command).items() if name not in shared and name != "help"]
    arguments = [each for each in own if each.param_type_name == "argument"]
    words = [title, *(shape(each) for each in arguments), "[OPTIONS]"]
    parts.append(f"```sh\n{' '.join(words)}\n```")
    if own:
        parts.append(table(own))
    return parts


def shape(argument: Any) -> str:
    """An argument as the usage line shows it."""
    name = argument.metavar or argument.name.upper()
    if name.startswith("["):  # the metavar says already that the argument may be left out
        return name.removesuffix("]") if name.count("]") > name.count("[") else name
    name = name + ("..." if argument.nargs == -1 and "..." not in name else "")
    return name if argument.required else f"[{name.strip('[]')}]"


def table(parameters: list[Any]) -> str:
    """A table of arguments and options."""
    rows = ["| argument or option | meaning |", "|---|---|"]
    for each in parameters:
        if each.param_type_name == "argument":
            name = f"`{shape(each)}`"
        else:
            value = "" if each.is_flag else f" {each.metavar or each.name.rstrip('_').upper()}"
            name = ", ".join(f"`{option}`" for option in each.opts[:-1]) + (", " if each.opts[1:] else "")
            name = f"`{each.opts[0]}{value}`" + "".join(f", `{option}`" for option in each.opts[1:])
        rows.append(f"| {name} | {meaning(each)} |".replace("\n", " "))
    return "\n".join(rows)


def meaning(parameter: Any) -> str:
    """The help text of a parameter, and its default value if the text does not say it."""
    words = prose(parameter.help or "")
    default = parameter.default
    if default and isinstance(default, int | float | str) and not isinstance(default, bool) and "Default" not in words:
        words += f" Default: `{default}`."
    return words.replace("|", "\\|")


def prose(words: str) -> str:
    """A help text as Markdown. Options, variables and words in capitals are shown as code."""
    return re.sub(r"(?<![\w`-])(--[a-z][\w-]*|\$[A-Z_]+|[A-Z]{2,}=[A-Z]+)", r"`\1`", " ".join(words.split()))
