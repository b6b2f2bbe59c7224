"""Several brokers that work as one: a cluster of ejabberd nodes, and two Mosquittos with a bridge between them."""

from __future__ import annotations

import contextlib
import os
import subprocess
from collections.abc import Iterator

from .ejabberd import Ejabberd
from .mosquitto import Mosquitto
from .process import die_with_parent, find_program, free_port

BRIDGED = "test/#"
"""The topics of the bridge: those of the fixture ``namespace``."""


class EjabberdNode(Ejabberd):
    """A node of a cluster.

    Args:
        names: The port of the cluster's epmd, at which the nodes find each other by their names.
        joins: A node that runs already, and that the new node joins; None for the first node.
    """

    def __init__(self, names: int, joins: EjabberdNode | None = None) -> None:
        super().__init__()
        self.node = f"ejabberd{self.port}@127.0.0.1"
        self._names = names
        self._joins = joins

    @classmethod
    def missing(cls) -> str | None:
        return super().missing() or (None if find_program("epmd") else "epmd")

    def environment(self) -> dict[str, str]:
        return {**super().environment(), "ERL_EPMD_PORT": str(self._names), "ERL_EPMD_ADDRESS": "127.0.0.1"}

    def command(self) -> list[str]:
        command = [*super().command(), "-name", self.node, "-setcookie", "tests", "-start_epmd", "false"]
        command += ["-kernel", "inet_dist_use_interface", "{127,0,0,1}"]
        if self._joins is not None:
            command += ["-eval", f"ok = ejabberd_cluster:join('{self._joins.node}'), io:format(\"joined~n\")."]
        return command

    def listens(self) -> bool:
        return super().listens() and (self._joins is None or "joined\n" in self.log)


@contextlib.contextmanager
def ejabberd_cluster(size: int = 3) -> Iterator[list[EjabberdNode]]:
    """A cluster of ejabberd nodes, as ``ejabberdctl join_cluster`` makes it."""
    names = free_port()
    epmd = subprocess.Popen(
        [find_program("epmd") or "epmd", "-address", "127.0.0.1", "-port", str(names)],
        stdin=subprocess.DEVNULL,
        env={**os.environ, "ERL_EPMD_RELAXED_COMMAND_CHECK": "1"},
        preexec_fn=die_with_parent,
    )
    nodes: list[EjabberdNode] = []
    try:
        for _ in range(size):
            nodes.append(EjabberdNode(names, nodes[0] if nodes else None))
            nodes[-1].start()
        yield nodes
    finally:
        for node in nodes:
            node.close()
        epmd.kill()
        epmd.wait(10)


@contextlib.contextmanager
def bridged_mosquittos() -> Iterator[list[Mosquitto]]:
    """Two Mosquittos. The second has a bridge to the first, for all topics of the tests in both directions."""
    with Mosquitto() as first:
        bridge = [
            "connection bridge",
            f"address 127.0.0.1:{first.port}",
            "bridge_protocol_version mqttv50",
            f"topic {BRIDGED} both 1",
            "cleansession false",
            "restart_timeout 1",
        ]
        with Mosquitto(bridge) as second:
            yield [first, second]
