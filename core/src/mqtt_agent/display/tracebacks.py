"""What IPython shows of an error, and what to do about it."""

from __future__ import annotations

import linecache
import sysconfig
import traceback
from pathlib import Path

from mqtt_agent.display.html import one_line
from mqtt_agent.display.screen import find_shell

__all__ = ["NEXT_STEPS", "short_traceback"]

NEXT_STEPS = {
    "InvalidIdentifier": "choose a name that can be one level of an MQTT topic, such as 'weather-1'",
    "WireError": "pass plain JSON values, dataclasses or pydantic models",
    "TransportError": "look at the broker's log",
    "BrokerUnreachable": "start a broker there, give broker=..., or set MQTT_AGENT_BROKER; EmbeddedBroker() is one",
    "ConnectionRefused": "check credentials= and the user's rights at the broker",
    "ConnectionLost": "start it again; what was stored is taken up: agent.resume(task_id), or submit(..., call_id=...)",
    "SessionTakenOver": "give each process an agent id or client id of its own",
    "TopicNotAuthorized": "let this user publish or subscribe there in the broker's access rules: docs/production.md",
    "PublishRefused": "look at the broker's log for why it refused the message",
    "PayloadTooLarge": "send less, send a reference to it, or raise the broker's Maximum Packet Size",
    "QueueFull": "wait for calls that are under way before making more, or raise max_pending",
    "CallError": "see its .call_id",
    "InvalidArguments": "await client.get_tool(name) shows what the tool takes",
    "CallerNotAuthorized": "ask whoever runs the tool server to let this caller in",
    "ToolFailed": "see its .code and .data; the tool server's log has the traceback",
    "CallTimeout": "submit(..., call_id=error.call_id) attaches to the call, which may still run",
    "CallCanceled": "make the call again if it is still wanted",
    "ToolUnavailable": "start its server, or call with wait_online=True; .maybe_executed tells whether it may have run",
    "TaskError": "see its .task_id",
    "TaskFailed": "see its .code, .type and .data; the log of its agent has the traceback",
    "TaskRejected": "give it to another agent: await agent.peers() lists them",
    "TaskCanceled": "delegate it again, with another task id, if it is still wanted",
    "TaskExpired": "delegate it again with a later expires_at",
    "TaskTimeout": "the task goes on: handle = await agent.resume(error.task_id)",
    "TaskNotFound": "await agent.delegations() lists what the store knows; or name the peer: resume(task_id, peer=...)",
    "PeerUnavailable": "await agent.peers() lists who is online; delegate(..., wait_online=True) waits for it",
    "StoreError": "check the file's path, rights and disk space; a damaged file is never overwritten",
}
"""What to do about an error, by the name of its class."""


def short_traceback(error: BaseException) -> list[str]:
    """What IPython shows of an error: the reader's own lines, the message, and what to do next."""
    ipython = find_shell()
    if ipython is not None and getattr(ipython.InteractiveTB, "mode", "") in ("Verbose", "Docs"):
        return ipython.InteractiveTB.structured_traceback(type(error), error, error.__traceback__)
    frames = [frame for frame in traceback.extract_tb(error.__traceback__) if _is_the_readers(frame.filename)]
    lines: list[str] = []
    for frame in frames[-3:]:
        code = linecache.getline(frame.filename, frame.lineno or 0).strip() or frame.line or ""
        place = "" if "ipykernel" in frame.filename or frame.filename.startswith("<") else f"{frame.filename}, "
        lines.append(f"{place}line {frame.lineno}: {code}")
    steps = (NEXT_STEPS.get(kind.__name__) for kind in type(error).__mro__)
    step = next((step for step in steps if step is not None), None)
    if lines:
        lines.append("")
    lines.append(f"\x1b[31m{type(error).__name__}\x1b[0m: {one_line(str(error), 2000)}")
    if step is not None:
        lines.append(f"\x1b[1mNext:\x1b[0m {step}.")
    lines.append("(%xmode Verbose before the cell shows the whole traceback.)")
    return lines


def _is_the_readers(file: str) -> bool:
    libraries = {sysconfig.get_paths()[name] for name in ("stdlib", "purelib", "platlib")}
    ours = str(Path(__file__).parents[1])
    return not file.startswith((ours, "<frozen", *libraries)) and "site-packages" not in file
