"""Imports modules, and then forks a program for each message at a socket: forking_program.py DESCRIPTOR MODULE...

See forking.py. Each message begins with four bytes: twice the length of its JSON, and one more if descriptors come.
"""

from __future__ import annotations

import ctypes
import gc
import importlib
import importlib.util
import json
import os
import signal
import socket
import sys
import threading
import types
from typing import Any

PATH = sys.path[1:]


def main() -> None:
    own = socket.socket(fileno=int(sys.argv[1]))
    for module in sys.argv[2:]:
        importlib.import_module(module)
    assert threading.active_count() == 1, "a thread would not exist in the forked process"
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C at a terminal goes to the tests
    gc.freeze()  # a collection in a forked process would copy the pages of all that was imported
    while length := own.recv(4, socket.MSG_WAITALL):
        size, with_descriptors = divmod(int.from_bytes(length, "big"), 2)
        descriptors = socket.recv_fds(own, 1, 3)[1] if with_descriptors else []
        message = json.loads(own.recv(size, socket.MSG_WAITALL))
        if "prepare" in message:
            answer = 0
        elif "reap" in message:
            answer = os.waitpid(message["reap"], 0)[1]
        else:
            answer = os.fork()
            if answer == 0:
                own.close()
                become(message, descriptors)
                return
            for each in descriptors:
                os.close(each)
        own.sendall(f"{answer}\n".encode())


def become(message: dict[str, Any], descriptors: list[int]) -> None:
    """Run the program in this process."""
    ctypes.CDLL(None).prctl(1, signal.SIGKILL)  # when the forking process has ended
    signal.signal(signal.SIGINT, signal.default_int_handler)
    for number, each in enumerate(descriptors):
        os.dup2(each, number)
    for each in descriptors:
        os.close(each)
    os.chdir(message["cwd"])
    os.environ.clear()
    os.environ.update(message["env"])
    more = [each for each in os.environ.get("PYTHONPATH", "").split(os.pathsep) if each]
    first, *arguments = message["fork"]
    program = sys.modules["__main__"] = types.ModuleType("__main__")
    if first == "-m":
        sys.path[:] = [os.getcwd(), *more, *PATH]
        name, *arguments = arguments
        spec = importlib.util.find_spec(name)
        if spec is not None and spec.submodule_search_locations is not None:
            spec = importlib.util.find_spec(f"{name}.__main__")
        assert spec is not None
        assert spec.origin is not None
        loader: Any = spec.loader
        code = loader.get_code(spec.name)
        program.__file__, program.__package__, program.__spec__ = spec.origin, spec.parent, spec
        sys.argv[:] = [spec.origin, *arguments]
    else:
        sys.path[:] = [os.path.dirname(os.path.abspath(first)), *more, *PATH]
        with open(first, "rb") as file:
            code = compile(file.read(), first, "exec")
        program.__file__ = first
        sys.argv[:] = [first, *arguments]
    exec(code, program.__dict__)


if __name__ == "__main__":
    main()
