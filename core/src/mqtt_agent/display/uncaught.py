"""Shows an error of MQTT.Agent that ends a program at a terminal: the user's own lines, the message, and the next step.

The hooks of Python for uncaught exceptions belong to the program, so this module is careful with them:

- An import changes nothing. The hooks are set when the process makes its first error of MQTT.Agent.
- The hooks are set only when the standard error is a terminal, and only in place of hooks that print the ordinary
  traceback. A hook of the program, of a debugger or of a library that reports crashes stays as it is.
- Every exception that is not an error of MQTT.Agent is given to the hook that was there before. The hook also gets
  an error of MQTT.Agent whose short form would hide an exception of the user's own code.
- Ctrl-C during a blocking call of MQTT.Agent, or when it cancels a coroutine inside ``async with`` of an endpoint, ends
  the program without a traceback, and with the same exit status as without this module.
- With ``MQTT_AGENT_TRACEBACK=1`` in the environment, every exception is given to the hook that was there before.
"""

from __future__ import annotations

import os
import sys
import threading
from asyncio import CancelledError
from types import TracebackType
from typing import Any

from mqtt_agent.aio.groups import leaves_of
from mqtt_agent.display.frames import code_of, user_frames
from mqtt_agent.display.tracebacks import MOST_FRAMES, message_lines

__all__ = ["end_quietly", "set_hooks"]

_WHOLE = "MQTT_AGENT_TRACEBACK"
_QUIET = "_mqtt_agent_quiet"
"""The attribute of a KeyboardInterrupt that is not shown, or of the CancelledError that it comes from."""


def set_hooks(ours: type[BaseException]) -> None:
    """Show uncaught errors in the short form from now on, if the standard error is a terminal.

    Args:
        ours: The base class of the errors that are shown in the short form.
    """
    if not _at_terminal():
        return
    if _only_prints(sys.excepthook):
        print_exception = sys.excepthook

        def on_exception(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> Any:
            if not _show(error, ours, ""):
                print_exception(kind, error, trace)

        sys.excepthook = on_exception
    if _only_prints(threading.excepthook):
        print_in_thread = threading.excepthook

        def on_exception_in_thread(arguments: threading.ExceptHookArgs) -> Any:
            name = arguments.thread.name if arguments.thread is not None else "?"
            if arguments.exc_value is None or not _show(arguments.exc_value, ours, f"Exception in thread {name}:\n"):
                print_in_thread(arguments)

        threading.excepthook = on_exception_in_thread


def end_quietly(interrupt: object, ours: type[BaseException]) -> None:
    """Show no traceback if this is a Ctrl-C that ends the program, and the standard error is a terminal.

    Args:
        interrupt: The KeyboardInterrupt of a blocking call of MQTT.Agent; or the CancelledError that ends a block of
            ``async with``. On Python 3.11 and newer, ``asyncio.run`` cancels its coroutine at Ctrl-C, and raises
            KeyboardInterrupt when only this CancelledError has come out. Any other exception is shown as ever.
        ours: The base class of the errors that are shown in the short form.
    """
    if isinstance(interrupt, (KeyboardInterrupt, CancelledError)):
        setattr(interrupt, _QUIET, True)
        set_hooks(ours)


def _only_prints(hook: Any) -> bool:
    """Whether a hook only prints the ordinary traceback, as Python's own hooks do."""
    # On Python 3.10, the package exceptiongroup sets a hook that also prints exception groups.
    of_groups = getattr(hook, "__module__", None) == "exceptiongroup._formatting"
    return of_groups or hook in (sys.__excepthook__, threading.__excepthook__)


def _at_terminal() -> bool:
    try:
        return sys.stderr.isatty()
    except (AttributeError, ValueError):  # a program without a console has no standard error; or it is closed
        return False


def _show(error: BaseException, ours: type[BaseException], before: str) -> bool:
    """Print the short form of an error. Returns False when the ordinary traceback must be printed instead."""
    try:
        errors = list(leaves_of(error))
        if os.environ.get(_WHOLE, "0") not in ("", "0") or not _at_terminal():
            return False
        if isinstance(error, KeyboardInterrupt) and (hasattr(error, _QUIET) or hasattr(error.__context__, _QUIET)):
            return True
        if not all(isinstance(each, ours) and not _hides_user_code(each, ours) for each in errors):
            return False
        blocks = ["\n".join(_lines(each, error)) for each in errors]
        hint = f"(Set {_WHOLE}=1 to see the whole traceback.)"
        sys.stderr.write(before + "\n\n".join(blocks) + f"\n{hint}\n")
        sys.stderr.flush()
    except Exception:  # an error in a hook would hide the error that the program ended with
        return False
    return True


def _lines(error: BaseException, whole: BaseException) -> list[str]:
    frames = user_frames(error.__traceback__) or user_frames(whole.__traceback__)
    lines: list[str] = []
    for frame in frames[-MOST_FRAMES:]:  # in Python's own form, which editors and terminals recognize as a link
        lines += [f'  File "{frame.filename}", line {frame.lineno}, in {frame.name}', f"    {code_of(frame)}"]
    colors = not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb" and sys.platform != "win32"
    return [*lines, *message_lines(error, colors=colors)]


def _hides_user_code(error: BaseException, ours: type[BaseException]) -> bool:
    """Whether the error was raised while the user's code handled another exception, or because of one."""
    seen = {id(error)}
    link = error.__cause__ or (None if error.__suppress_context__ else error.__context__)
    while link is not None and id(link) not in seen:
        if not isinstance(link, ours) and user_frames(link.__traceback__):
            return True
        seen.add(id(link))
        link = link.__cause__ or (None if link.__suppress_context__ else link.__context__)
    return False
