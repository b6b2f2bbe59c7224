"""An application for ``gunicorn --preload``, which imports it once and then forks its workers."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Iterable
from typing import Any

from mqtt_agent.errors import MQTTAgentError
from mqtt_agent.sync import ToolClient

lazy = ToolClient(namespace=os.environ["NAMESPACE"])
master = lazy.agent_id
connected = ToolClient(namespace=os.environ["NAMESPACE"])
connected.start()


def application(environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
    began = time.monotonic()
    try:
        if environ["PATH_INFO"] == "/lazy":
            lazy.start()
            told: dict[str, Any] = {"value": lazy.call("both", timeout=10), "pid": os.getpid(), "master": master}
        else:
            told = {"value": connected.call("whoami", timeout=10)}
    except MQTTAgentError as error:
        told = {"error": type(error).__name__, "text": str(error)}
    start_response("200 OK", [("Content-Type", "application/json")])
    return [json.dumps({**told, "seconds": time.monotonic() - began}).encode()]
