"""Fixtures for all tests: real brokers, and a separate namespace for each test."""

from __future__ import annotations

import importlib.util
import socket
import uuid
from collections.abc import Callable, Iterator
from typing import Any

import forking
import pytest
from brokers import ALL_BROKERS, BROKERS, Broker, Ejabberd, Embedded, Mosquitto, ProcessBroker
from brokers import embedded as embedded_brokers
from brokers.rough import QUICK, behind, networks_of
from databases import PgBouncer, Postgres, close_shared
from hypothesis import settings
from skips import pytest_make_collect_report, pytest_runtest_makereport  # noqa: F401
from support import on_brokers, require

# The conftest of these tests disconnects the whole process from other machines, and they have their own venv:
# make crewai.
collect_ignore = [] if importlib.util.find_spec("crewai") else ["integrations/crewai"]

settings.register_profile("default", deadline=None, max_examples=100)
settings.load_profile("default")


def pytest_terminal_summary(terminalreporter: Any) -> None:
    missing = [kind.name for kind in (*ALL_BROKERS, Postgres, PgBouncer) if kind.missing()]
    if missing:
        terminalreporter.write_line(f"Left out: the runs on {', '.join(missing)}, not installed on this machine.")


def pytest_sessionfinish() -> None:
    close_shared()
    forking.end_forking()
    embedded_brokers.end_forking()


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    networks = networks_of(metafunc.function.__name__)
    brokers = sorted({"broker", "own_broker"} & set(metafunc.fixturenames))
    for fixture in brokers:
        kinds = getattr(metafunc.module, "RUN_ON", BROKERS)
        slow = getattr(metafunc.module, "LONG_ON", [])
        if networks and fixture == brokers[0]:
            alone = [pytest.param(*each.values, None, id=each.id, marks=each.marks) for each in on_brokers(kinds, slow)]
            rough = Mosquitto if Mosquitto in kinds else Ejabberd
            pairs = [_rough(metafunc, name, rough) for name in networks]
            metafunc.parametrize((fixture, "network"), [*alone, *pairs], indirect=True)
        else:
            metafunc.parametrize(fixture, on_brokers(kinds, slow), indirect=True)
    if networks and not brokers:
        alone = pytest.param(None, id=pytest.HIDDEN_PARAM)
        metafunc.parametrize("network", [alone, *(_rough(metafunc, name) for name in networks)], indirect=True)


def _rough(metafunc: pytest.Metafunc, network: str, *kind: type[Broker]) -> Any:
    """The parameters of a test of docs/guarantees.md behind a bad network."""
    name = "-".join([each.name for each in kind] + [network])
    quick = (metafunc.function.__name__, network) in QUICK
    return pytest.param(*kind, network, id=name, marks=() if quick else pytest.mark.long)


@pytest.fixture(autouse=True)
def network(request: pytest.FixtureRequest) -> Iterator[None]:
    """The bad network between all brokers and their clients, for the tests that docs/guarantees.md names."""
    name = getattr(request, "param", None)
    if name is None:
        yield
        return
    with behind(name) as network:
        yield
        assert network.used, "no connection of this test went through the network"


@pytest.fixture
def url_of_nobody() -> Iterator[str]:
    """A URL at which every connection is refused. The port is reserved, so that no broker of another test gets it."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        yield f"mqtt://127.0.0.1:{taken.getsockname()[1]}"


@pytest.fixture(scope="session")
def _running() -> Iterator[Callable[[type[Any]], Any]]:
    started: dict[type[Any], Any] = {}

    def get(kind: type[Any]) -> Any:
        require(kind)
        if kind not in started:
            started[kind] = kind().start()
        return started[kind]

    yield get
    for broker in started.values():
        broker.close()


def _run(kind: type[Any], running: Callable[[type[Any]], Any]) -> Iterator[Any]:
    if kind is Embedded:  # the embedded broker confuses the namespaces of two tests, and it starts very fast
        with kind() as broker:
            yield broker
    else:
        yield running(kind)


@pytest.fixture
def broker(request: pytest.FixtureRequest, _running: Callable[[type[Any]], Any]) -> Iterator[Broker]:
    """A running broker, for tests that do not stop or change it. Each test runs on every broker."""
    yield from _run(request.param, _running)


@pytest.fixture
def own_broker(request: pytest.FixtureRequest) -> Iterator[Broker]:
    """A running broker that the test may stop, kill and restart."""
    require(request.param)
    with request.param() as broker:
        yield broker


@pytest.fixture
def mosquitto(_running: Callable[[type[Any]], Any]) -> Mosquitto:
    """The shared Mosquitto, for tests that are only about Mosquitto."""
    return _running(Mosquitto)


@pytest.fixture
def ejabberd(_running: Callable[[type[Any]], Any]) -> Ejabberd:
    """The shared ejabberd, for tests about a broker without shared subscriptions."""
    return _running(Ejabberd)


@pytest.fixture
def embedded(_running: Callable[[type[Any]], Any]) -> Iterator[Embedded]:
    """An embedded broker, for tests that do not depend on the kind of broker."""
    yield from _run(Embedded, _running)


@pytest.fixture
def make_mosquitto() -> Iterator[Callable[..., Mosquitto]]:
    """Starts Mosquitto brokers with a configuration from the test."""
    started: list[ProcessBroker] = []

    def make(*args: Any, **options: Any) -> Mosquitto:
        require(Mosquitto)
        broker = Mosquitto(*args, **options)
        started.append(broker)
        return broker.start()

    yield make
    for broker in started:
        broker.close()


@pytest.fixture
def namespace() -> str:
    """A namespace that no other test uses."""
    return f"test/{uuid.uuid4().hex[:10]}"
