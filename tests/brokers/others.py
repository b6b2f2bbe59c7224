"""Brokers that no package of Debian or PyPI contains in a version with MQTT 5: they run when they are found.

The settings are the defaults of each broker, except for the port, the folder and anonymous access. docs/brokers.md
tells which of these brokers have been run.
"""

from __future__ import annotations

import json
import os
from abc import abstractmethod

from .process import ProcessBroker, free_port


class _Configured(ProcessBroker):
    """A broker that reads one configuration file."""

    @property
    def configuration(self) -> str:
        """The path of the configuration file."""
        return str(self.folder / f"{self.name}.conf")

    @abstractmethod
    def settings(self) -> str:
        """The text of the configuration file."""

    def prepare(self) -> None:
        with open(self.configuration, "w", encoding="utf-8") as file:
            file.write(self.settings())


class FlashMQ(_Configured):
    name = "flashmq"
    program = "flashmq"
    marks_repeats = False
    ends_sessions = False
    queues_beyond_window = False
    most_waiting_bytes = 65_536
    says_unheard = False

    def settings(self) -> str:
        return f"""
            allow_anonymous true
            log_level warning
            listen {{
                protocol mqtt
                inet_protocol ip4
                inet4_bind_address 127.0.0.1
                port {self.port}
            }}
        """

    def command(self) -> list[str]:
        return [self.path(), "--config-file", self.configuration]

    def takes_user_properties(self, properties: list[tuple[str, str]]) -> bool:
        return len(properties) <= 50 and all(len(value.encode()) <= 4096 for _, value in properties)


class RoomyFlashMQ(FlashMQ):
    """FlashMQ with limits that drop no message of the tests; docs/brokers.md tells a user to raise them."""

    most_waiting_bytes = None

    def settings(self) -> str:
        limits = "max_qos_msg_pending_per_client 65535\nmax_qos_bytes_pending_per_client 268435456\n"
        limits += "max_string_length 65535\n"
        return limits + super().settings()


class Mochi(_Configured):
    """mochi-mqtt: the program ``cmd/docker`` of its repository."""

    name = "mochi"
    program = "mochi"
    repeats_in_order = False
    frees_groups = False
    longest_life = 24 * 3600
    keeps_wrong_response_topics = False
    says_unheard = False

    def settings(self) -> str:
        listener = {"type": "tcp", "id": "tcp", "address": f"127.0.0.1:{self.port}"}
        return json.dumps(
            {"listeners": [listener], "hooks": {"auth": {"allow_all": True}}, "logging": {"level": "WARN"}}
        )

    def command(self) -> list[str]:
        return [self.path(), "--config", self.configuration]


class MqttCpp(_Configured):
    """mqtt_cpp: the program ``example/broker`` of its repository, which has no name of its own."""

    name = "mqtt_cpp"
    says_unheard = False
    takes_unknown_logins = False
    program = "mqtt_cpp_broker"

    def settings(self) -> str:
        return f"[tcp]\nport={self.port}\n"

    def command(self) -> list[str]:
        return [self.path(), "--cfg", self.configuration]


class NanoMQ(_Configured):
    """NanoMQ. It starts once on a machine, so the tests with a broker of their own need a process of their own."""

    name = "nanomq"
    program = "nanomq"

    def settings(self) -> str:
        return f'listeners.tcp {{ bind = "127.0.0.1:{self.port}" }}\nauth {{ allow_anonymous = true }}\n'

    def command(self) -> list[str]:
        return [self.path(), "start", "--conf", self.configuration]


class EMQX(ProcessBroker):
    """EMQX, which is configured with environment variables. Its dashboard and its other listeners are off."""

    name = "emqx"
    program = "emqx"

    def environment(self) -> dict[str, str]:
        listeners = {f"EMQX_LISTENERS__{kind}__DEFAULT__ENABLE": "false" for kind in ("SSL", "WS", "WSS")}
        return {
            **os.environ,
            **listeners,
            "EMQX_NODE__NAME": f"emqx{self.port}@127.0.0.1",
            "EMQX_NODE__COOKIE": "tests",
            "EMQX_NODE__DATA_DIR": str(self.folder),
            "EMQX_LISTENERS__TCP__DEFAULT__BIND": f"127.0.0.1:{self.port}",
            "EMQX_DASHBOARD__LISTENERS__HTTP__BIND": "0",
        }

    def command(self) -> list[str]:
        return [self.path(), "foreground"]


class HiveMQ(_Configured):
    """HiveMQ CE: ``bin/run.sh`` of its distribution, which allows everybody by its default extension."""

    name = "hivemq"
    program = "hivemq"

    @property
    def configuration(self) -> str:
        return str(self.folder / "config.xml")

    def settings(self) -> str:
        return f"""<?xml version="1.0"?>
            <hivemq>
                <listeners>
                    <tcp-listener><port>{self.port}</port><bind-address>127.0.0.1</bind-address></tcp-listener>
                </listeners>
                <anonymous-usage-statistics><enabled>false</enabled></anonymous-usage-statistics>
            </hivemq>
        """

    def environment(self) -> dict[str, str]:
        folder = str(self.folder)
        return {
            **os.environ,
            "HIVEMQ_CONFIG_FOLDER": folder,
            "HIVEMQ_DATA_FOLDER": folder,
            "HIVEMQ_LOG_FOLDER": folder,
        }

    def command(self) -> list[str]:
        return [self.path()]


class VerneMQ(_Configured):
    """VerneMQ, with its configuration file in the folder of the test."""

    name = "vernemq"
    program = "vernemq"

    def settings(self) -> str:
        return f"""
            accept_eula = yes
            allow_anonymous = on
            nodename = vernemq{self.port}@127.0.0.1
            distributed_cookie = tests
            listener.tcp.default = 127.0.0.1:{self.port}
            listener.tcp.allowed_protocol_versions = 3,4,5
            listener.vmq.clustering = 127.0.0.1:{free_port()}
            listener.http.default = 127.0.0.1:{free_port()}
        """

    def environment(self) -> dict[str, str]:
        return {**os.environ, "RUNNER_ETC_DIR": str(self.folder), "RUNNER_LOG_DIR": str(self.folder)}

    def command(self) -> list[str]:
        return [self.path(), "foreground"]


class RabbitMQ(_Configured):
    """RabbitMQ 4 with its MQTT plugin; it has no shared subscriptions."""

    name = "rabbitmq"
    program = "rabbitmq-server"
    keeps_shared_messages = False
    shared_subscriptions = False

    def settings(self) -> str:
        return f"mqtt.listeners.tcp.1 = 127.0.0.1:{self.port}\nmqtt.allow_anonymous = true\n"

    def prepare(self) -> None:
        super().prepare()
        (self.folder / "plugins").write_text("[rabbitmq_mqtt].\n")

    def environment(self) -> dict[str, str]:
        return {
            **os.environ,
            "RABBITMQ_NODENAME": f"rabbit{self.port}@localhost",
            "RABBITMQ_NODE_PORT": str(free_port()),
            "RABBITMQ_DIST_PORT": str(free_port()),
            "RABBITMQ_CONFIG_FILE": self.configuration,
            "RABBITMQ_ENABLED_PLUGINS_FILE": str(self.folder / "plugins"),
            "RABBITMQ_MNESIA_BASE": str(self.folder),
            "RABBITMQ_LOG_BASE": str(self.folder),
        }

    def command(self) -> list[str]:
        return [self.path()]
