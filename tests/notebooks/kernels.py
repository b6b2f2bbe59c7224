"""A Jupyter kernel, controlled as a notebook's front end does."""

from __future__ import annotations

import time
from types import TracebackType
from typing import Any

from jupyter_client.blocking.client import BlockingKernelClient
from jupyter_client.manager import KernelManager, start_new_kernel

STARTED_WITHIN = 60.0
DEADLINE = 30.0


class Kernel:
    """A running kernel; ``run`` sends a cell, and waits until the cell has ended."""

    def __init__(self) -> None:
        manager, client = start_new_kernel(kernel_name="python3", startup_timeout=STARTED_WITHIN)
        self.manager: KernelManager = manager
        self.client: BlockingKernelClient = client

    def send(self, code: str) -> str:
        """Send a cell and return its message id."""
        return self.client.execute(code)

    def outputs(self, cell: str, until: str = "") -> list[dict[str, Any]]:
        """The messages of a cell, up to its end or to a message that contains ``until``."""
        seen: list[dict[str, Any]] = []
        deadline = time.monotonic() + DEADLINE
        while True:
            message = self.client.get_iopub_msg(timeout=max(0.1, deadline - time.monotonic()))
            if message["parent_header"].get("msg_id") != cell:
                continue
            content = message["content"]
            if message["msg_type"] == "status" and content["execution_state"] == "idle":
                return seen
            seen.append({"type": message["msg_type"], **content})
            if until and until in str(content):
                return seen

    def run(self, code: str) -> list[dict[str, Any]]:
        """Run a cell, and fail if it raises."""
        outputs = self.outputs(self.send(code))
        for each in outputs:
            assert each["type"] != "error", "\n".join(each["traceback"])
        return outputs

    def text(self, code: str) -> str:
        """Run a cell, and return its printed output."""
        return "".join(each["text"] for each in self.run(code) if each["type"] == "stream")

    def kill_and_restart(self) -> None:
        """Restart the kernel as ``Restart kernel`` does, without letting the old kernel stop in an orderly way."""
        self.manager.restart_kernel(now=True)
        self.client.wait_for_ready(timeout=STARTED_WITHIN)

    def __enter__(self) -> Kernel:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.client.stop_channels()
        self.manager.shutdown_kernel(now=True)
