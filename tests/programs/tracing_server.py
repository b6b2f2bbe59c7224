"""A traced tool server in its own process: tracing_server.py URL NAMESPACE.

Its tool prints the trace id that the handler sees, and returns the ids of the handler's span and of its parent.
"""

from __future__ import annotations

import os
import sys
import threading

from mqtt_agent import ToolServer
from opentelemetry import trace
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.trace import format_span_id, format_trace_id

trace.set_tracer_provider(TracerProvider())
url, namespace = sys.argv[1:3]
server = ToolServer("remote", broker=url, namespace=namespace, will_delay=1)


@server.tool
def where_am_i() -> dict[str, str | None]:
    span = trace.get_current_span()
    print(format_trace_id(span.get_span_context().trace_id), flush=True)
    parent = span.parent if isinstance(span, ReadableSpan) else None
    return {"pid": str(os.getpid()), "parent": format_span_id(parent.span_id) if parent else None}


def die_with_parent() -> None:
    os.read(0, 1)
    os._exit(0)


threading.Thread(target=die_with_parent, daemon=True).start()
server.run()
