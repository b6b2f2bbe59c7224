"""Real brokers for the tests, each in its own process on a free loopback port.

The tests with the fixture ``broker`` run on the embedded broker and on Mosquitto, and many also on ejabberd. They also
run on every broker of ``OTHERS`` whose program is on the PATH, or is named in the environment variable
``MQTT_AGENT_TEST_BROKERS``: ``MQTT_AGENT_TEST_BROKERS=mosquitto21=/opt/mosquitto/mosquitto,flashmq=/opt/flashmq``.
"""

from __future__ import annotations

from .ejabberd import Ejabberd
from .embedded import Embedded
from .mosquitto import Mosquitto, SecondMosquitto, password_line
from .others import EMQX, FlashMQ, HiveMQ, Mochi, MqttCpp, NanoMQ, RabbitMQ, RoomyFlashMQ, VerneMQ
from .process import NAMED, ProcessBroker, answers_mqtt, die_with_parent, find_program, free_port

__all__ = [
    "ALL_BROKERS",
    "BROKERS",
    "OTHERS",
    "ROOMY_BROKERS",
    "Broker",
    "Ejabberd",
    "Embedded",
    "Mosquitto",
    "ProcessBroker",
    "answers_mqtt",
    "die_with_parent",
    "find_program",
    "free_port",
    "password_line",
]

Broker = Embedded | ProcessBroker
OTHERS: list[type[ProcessBroker]] = [
    SecondMosquitto,
    FlashMQ,
    Mochi,
    MqttCpp,
    NanoMQ,
    EMQX,
    HiveMQ,
    VerneMQ,
    RabbitMQ,
]
"""The brokers that the tests use when they are found."""
if unknown := NAMED.keys() - {kind.name for kind in OTHERS}:
    raise ValueError(
        f"MQTT_AGENT_TEST_BROKERS names {', '.join(sorted(unknown))}, but the tests can start only "
        f"{', '.join(kind.name for kind in OTHERS)}: use one of these names, or add a class in tests/brokers"
    )
_found = [kind for kind in OTHERS if not kind.missing()]
BROKERS: list[type[Broker]] = [Embedded, Mosquitto, *(kind for kind in _found if kind.shared_subscriptions)]
"""The brokers on which every test with the fixture ``broker`` runs."""
ALL_BROKERS: list[type[Broker]] = [*BROKERS, Ejabberd, *(kind for kind in _found if not kind.shared_subscriptions)]
"""Also the brokers without shared subscriptions, for test modules that set ``RUN_ON = ALL_BROKERS``."""
ROOMY_BROKERS: list[type[Broker]] = [RoomyFlashMQ if kind is FlashMQ else kind for kind in ALL_BROKERS]
"""Brokers that take the large and the many messages of the hostile tests."""
