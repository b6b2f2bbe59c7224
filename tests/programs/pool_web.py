"""A web application whose workers are one pool of requesters: for ``gunicorn --preload pool_web:application``."""

from __future__ import annotations

import json
import os
import threading
from collections.abc import Callable, Iterable
from typing import Any

from mqtt_agent import PostgresStore
from mqtt_agent.sync import Agent

store = PostgresStore(os.environ["DATABASE"], lease=3)
agent = Agent("web", namespace=os.environ["NAMESPACE"], pool=True, store=store)
starting = threading.Lock()


def application(environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
    """Give a task to the agent ``writer``, and answer with the result."""
    with starting:
        if not agent.connection.started:
            agent.start()  # after the fork
    value = agent.request("writer", environ["PATH_INFO"].strip("/"), wait_online=True)
    start_response("200 OK", [("Content-Type", "application/json")])
    return [json.dumps({"process": os.getpid(), "value": value}).encode()]
