"""Short tracebacks: the user's own lines, the error message, and the next step."""

from __future__ import annotations

from mqtt_agent.display.frames import code_of, user_frames
from mqtt_agent.display.html import one_line
from mqtt_agent.display.screen import find_shell

__all__ = ["MOST_FRAMES", "NEXT_STEPS", "message_lines", "next_step", "short_traceback"]

MOST_FRAMES = 3
"""How many lines of the user's own code are shown."""

NEXT_STEPS: dict[str, str] = {
    "InvalidIdentifier": "choose a name that can be one level of an MQTT topic, such as 'weather-1'",
    "WireError": "pass plain JSON values, dataclasses or pydantic models",
    "TransportError": "look at the broker's log",
    "BrokerUnreachable": "start a broker at this URL, pass broker=..., set MQTT_AGENT_BROKER, or use EmbeddedBroker()",
    "ConnectionRefused": "check credentials=... and what the broker allows this user",
    "ConnectionLost": "start the endpoint; for earlier work: agent.resume(task_id), client.submit(..., call_id=...)",
    "TokenNotIssued": "check the settings of the TokenService; if the service is busy or away, try again later",
    "SessionTakenOver": "give each process an agent id or client id of its own",
    "ConnectedBeforeFork": "make the endpoint in the child process, or stop it before os.fork()",
    "TopicNotAuthorized": "allow the topic for this user in the broker's access rules, see docs/identity.md",
    "PublishRefused": "look at the broker's log for the reason",
    "PoisonMessage": "send less or fewer user properties; the broker's log may name its limit",
    "SubscriptionRefused": "the message says why; the broker's log may say more",
    "AuditFailed": "check the path, the permissions and the disk space of the audit, then start the endpoint again",
    "AgentIdTaken": "stop the other process, or give all of them pool=True and one PostgreSQL database",
    "InputNotGiven": "call the tool with on_question=, and answer in time; see the error's .code",
    "BrokerNotSupported": "allow at the broker what the message names, or use another broker",
    "PayloadTooLarge": "send less, send a reference to the data, or raise the broker's Maximum Packet Size",
    "QueueFull": "wait for some results before sending more, or raise max_pending (calls) or max_queued (messages)",
    "CallError": "the error's .call_id names the call",
    "InvalidArguments": "await client.get_tool(name) shows what the tool takes",
    "CallerNotAuthorized": "ask the operator of the tool server to let this caller in",
    "ContentLost": "call the tool again, which shares the content anew",
    "ToolFailed": "see the error's .code and .data; the tool server's log names the line that failed",
    "CallTimeout": "the call may still run; client.submit(..., call_id=error.call_id) attaches to it",
    "CallCanceled": "make the call again if its result is still wanted",
    "ToolNameTaken": "choose another name, use prefix=True, or wait for the name with on_conflict='standby'",
    "ToolUnavailable": "start a server of the tool, or use wait_online=True; if .maybe_executed, the tool may have run",
    "TaskError": "the error's .task_id names the task",
    "TaskFailed": "see the error's .code, .type and .data; the log of the executing agent names the line that failed",
    "TaskRejected": "give the task to another agent; await agent.peers() lists them",
    "TaskCanceled": "delegate the work again, with another task id, if its result is still wanted",
    "TaskExpired": "delegate the work again with a later expires_at",
    "TaskTimeout": "the task goes on: handle = await agent.resume(error.task_id)",
    "TaskNotFound": "await agent.delegations() lists the stored tasks; or name the peer: resume(task_id, peer=...)",
    "PeerUnavailable": "await agent.peers() lists the agents that are online; wait_online=True sends the task anyway",
    "RosterError": "correct the roster at the line that the message names, see docs/identity.md",
    "StoreError": "check the path or the URL, the permissions and the disk space; a damaged file is never overwritten",
}
"""What the user can do about an error, by the name of its class."""


def short_traceback(error: BaseException) -> list[str]:
    """The lines that IPython shows for an error.

    Args:
        error: The error, with its traceback.

    Returns:
        The lines of the user's own code that led to the error (three at most), the message, and what to do next. In
        IPython's verbose mode, the whole traceback instead.
    """
    ipython = find_shell()
    if ipython is not None and getattr(ipython.InteractiveTB, "mode", "") in ("Verbose", "Docs"):
        return ipython.InteractiveTB.structured_traceback(type(error), error, error.__traceback__)
    lines: list[str] = []
    for frame in user_frames(error.__traceback__)[-MOST_FRAMES:]:
        place = "" if "ipykernel" in frame.filename or frame.filename.startswith("<") else f"{frame.filename}, "
        lines.append(f"{place}line {frame.lineno}: {code_of(frame)}")
    if lines:
        lines.append("")
    lines += message_lines(error, colors=True)
    lines.append("(Run %xmode Verbose before the cell to see the whole traceback.)")
    return lines


def message_lines(error: BaseException, *, colors: bool) -> list[str]:
    """The lines that say what happened, and what to do next.

    Args:
        error: The error.
        colors: Whether the lines have the escape sequences for colors.
    """
    red, bold, plain = ("\x1b[31m", "\x1b[1m", "\x1b[0m") if colors else ("", "", "")
    step = next_step(error)
    lines = [f"{red}{type(error).__name__}{plain}: {one_line(str(error), 2000)}"]
    lines += [one_line(str(note), 2000) for note in getattr(error, "__notes__", ())]
    if step is not None:
        lines.append(f"{bold}Next:{plain} {step}.")
    return lines


def next_step(error: BaseException) -> str | None:
    """What the user can do about an error; None when nothing is known."""
    steps = (NEXT_STEPS.get(kind.__name__) for kind in type(error).__mro__)
    return next((step for step in steps if step is not None), None)
