"""Forks an embedded broker for each line of its standard input; see forked.py."""

from __future__ import annotations

import ctypes
import json
import logging
import os
import signal
import sys
from typing import Any, NoReturn

from iotcore.iotcore import IotCoreBroker


def serve(options: dict[str, Any]) -> NoReturn:
    """Be a broker, as ``iotcore``'s own program is, until this process or the forking process is killed."""
    ctypes.CDLL(None).prctl(1, signal.SIGKILL)  # when the forking process has ended
    null = os.open(os.devnull, os.O_RDWR)
    os.dup2(null, 0)
    os.dup2(null, 1)
    logging.basicConfig(level="WARNING", format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    logging.getLogger("rumqttd").setLevel(logging.CRITICAL)
    IotCoreBroker(**options).run_forever()
    os._exit(0)


def main() -> None:
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # the kernel reaps the brokers
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C at a terminal goes to the tests
    for line in sys.stdin:
        pid = os.fork()
        if pid == 0:
            serve(json.loads(line))
        print(pid, flush=True)


if __name__ == "__main__":
    main()
