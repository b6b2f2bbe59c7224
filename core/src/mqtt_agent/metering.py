"""Metrics with OpenTelemetry: durations, failures, reconnects and queue lengths.

The metrics are recorded when OpenTelemetry's API is installed and the application has set a meter provider. Until then,
nothing is measured. The names follow OpenTelemetry's semantic conventions for MCP and for messaging; names that begin
with ``mqtt_agent.`` are this project's own.

The module checks only once, when it is imported, whether the API is installed.
"""

# pyright: reportPossiblyUnboundVariable=false
# The names of OpenTelemetry are unbound when the API is not installed. They are used only where ENABLED is true.

from __future__ import annotations

import contextlib
import inspect
import logging
import threading
import weakref
from collections import Counter as Sums
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping
from typing import Any, Generic, TypeVar

from mqtt_agent.logs import logger_of
from mqtt_agent.version import __version__

__all__ = ["ENABLED", "Counter", "Durations", "Levels", "harmless"]

logger: logging.Logger = logger_of(__name__)

try:
    from opentelemetry import metrics
    from opentelemetry.metrics import CallbackOptions, Observation

    _meter = metrics.get_meter("mqtt_agent", __version__)
    _enabled = True
except ImportError:
    _enabled = False
except Exception as _error:  # for example, $OTEL_PYTHON_METER_PROVIDER names a provider that is not installed
    logger.warning("nothing is measured: OpenTelemetry cannot be used: %r", _error)
    _enabled = False

ENABLED: bool = _enabled
"""Whether OpenTelemetry's API is installed."""

_BUCKETS = (0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 30, 60, 120, 300)
"""Seconds; the bounds that OpenTelemetry's conventions for MCP recommend."""
_MOST = 1000
"""How many combinations of attributes one metric has. Names beyond that are recorded as ``_OTHER``."""

Attributes = Mapping[str, str]
T = TypeVar("T")

_told: set[str] = set()


@contextlib.contextmanager
def harmless(what: str) -> Generator[None]:
    """Run code that calls the application's telemetry, and log what it raises.

    The samplers, span processors, exporters and views of the application run inside of calls to OpenTelemetry, and may
    raise anything. What is measured must not fail for that. Each fault is a warning once, and later only for debugging.

    Args:
        what: What is lacking when the code fails, for the log.
    """
    try:
        yield
    except Exception as error:
        logger.log(logging.DEBUG if what in _told else logging.WARNING, "%s: OpenTelemetry raised %r", what, error)
        _told.add(what)


class _Metric:
    """A metric that is recorded by the code itself.

    Args:
        name_key: The attribute that holds the name of the tool or agent.
        common: The attributes that all values have.
    """

    def __init__(self, name_key: str, common: Attributes) -> None:
        self._name_key = name_key
        self._common = common
        self._known: dict[tuple[str, str | None], dict[str, str]] = {}
        self._instrument: Any = None

    @property
    def wanted(self) -> bool:
        """Whether the application has set a meter provider."""
        # Until then, the API's stand-in has no real instrument. What is not known to be a stand-in is wanted.
        return getattr(self._instrument, "_real_instrument", self._instrument) is not None

    def _attributes(self, name: str, error: str | None) -> dict[str, str]:
        known = self._known.get((name, error))
        if known is None:
            if len(self._known) >= _MOST:
                name = "_OTHER"
            known = {**self._common, self._name_key: name}
            if error is not None:
                known["error.type"] = error
            self._known[name, error] = known
        return known


class Durations(_Metric):
    """A histogram of how long something took, in seconds, by name and by error.

    Args:
        name: The name of the metric.
        description: What is measured.
        name_key: The attribute that holds the name of the tool or agent.
        common: The attributes that all values have.
    """

    def __init__(self, name: str, description: str, name_key: str, common: Attributes) -> None:
        super().__init__(name_key, common)
        if ENABLED:
            more: dict[str, Any] = {}
            if "explicit_bucket_boundaries_advisory" in inspect.signature(_meter.create_histogram).parameters:
                more["explicit_bucket_boundaries_advisory"] = _BUCKETS
            self._instrument = _meter.create_histogram(name, unit="s", description=description, **more)

    def record(self, seconds: float, name: str, error: str | None = None) -> None:
        """Record one duration.

        Args:
            seconds: How long it took.
            name: The name of the tool or agent.
            error: The kind of the error; None when there was none.
        """
        with harmless("a duration is not measured"):
            self._instrument.record(seconds, self._attributes(name, error))


class Counter(_Metric):
    """A counter of events, by name.

    Args:
        name: The name of the metric.
        unit: What is counted, such as ``{reconnect}``.
        description: What is counted, in words.
        name_key: The attribute that holds the kind of the event.
        common: The attributes that all values have.
    """

    def __init__(self, name: str, unit: str, description: str, name_key: str, common: Attributes) -> None:
        super().__init__(name_key, common)
        if ENABLED:
            self._instrument = _meter.create_counter(name, unit=unit, description=description)

    def add(self, name: str) -> None:
        """Count one event."""
        if ENABLED and self.wanted:
            with harmless("an event is not counted"):
                self._instrument.add(1, self._attributes(name, None))


class Levels(Generic[T]):
    """How many of something there are now, such as the length of a queue. It is read only when somebody collects.

    Args:
        name: The name of the metric.
        unit: What is counted, such as ``{message}``.
        description: What is counted, in words.
        read: The present numbers of one object, each with its attributes. Numbers with equal attributes are added up.
            It is called in a thread of the application's metric reader.
    """

    def __init__(
        self, name: str, unit: str, description: str, read: Callable[[T], Iterable[tuple[int, Attributes]]]
    ) -> None:
        self._read = read
        self._lock = threading.Lock()
        self._watched: weakref.WeakSet[Any] = weakref.WeakSet()
        if ENABLED:
            _meter.create_observable_up_down_counter(
                name, callbacks=[self._observe], unit=unit, description=description
            )

    def watch(self, subject: T) -> None:
        """Count an object from now on, as long as it exists."""
        if ENABLED:
            with self._lock:
                self._watched.add(subject)

    def _observe(self, _: CallbackOptions) -> Iterator[Observation]:
        with self._lock:
            watched = list(self._watched)
        sums: Sums[tuple[tuple[str, str], ...]] = Sums()
        for subject in watched:
            for number, attributes in self._read(subject):
                sums[tuple(sorted(attributes.items()))] += number
        for attributes, number in sums.items():
            yield Observation(number, dict(attributes))
