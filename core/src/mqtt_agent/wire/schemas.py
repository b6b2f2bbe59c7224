"""Compiles JSON Schemas that may come from a peer."""

from __future__ import annotations

import functools
from typing import Any, cast

import jsonschema_rs

from mqtt_agent.wire.efforts import Effort, is_recursive
from mqtt_agent.wire.faults import Fault, faults_in

__all__ = ["NOT_TOLD", "Checker", "schema_validator"]

_MOST_TOLD = 2_000
"""The steps of the longest check that tells all faults: it collects the faults of all alternatives at all levels."""
_MOST_STEPS = 100_000

NOT_TOLD: Fault = Fault([], "must fit the schema; too many levels with alternatives hide the place that does not")
"""The fault of a value for which it would take too long to collect the faults of all alternatives."""


class Checker:
    """Checks values that may come from a peer. Neither a value nor a schema makes a check last for ever.

    Args:
        what: The name of the schema, for the error.
        schema: The JSON Schema.

    Raises:
        ValueError: The schema is not valid JSON Schema, or refers to something outside itself.
    """

    def __init__(self, what: str, schema: Any) -> None:
        self._schema: Any = schema
        self._validator = schema_validator(what, schema)

    def fits(self, value: Any) -> bool:
        """Whether a value fits the schema. Use it only with a schema of the program itself."""
        # A part of a schema that contains itself is checked once for each part of the value; see jsonschema-rs.
        return self._validator.is_valid(value)

    def fault_of(self, value: Any) -> list[Fault]:
        """What is wrong with a value; nothing when it fits. The schema may come from a peer."""
        if Effort(self._schema).is_out_of_proportion(value, _MOST_STEPS):
            return [Fault([], "cannot be checked: the schema has too many alternatives within alternatives")]
        return [] if self.fits(value) else self._told(value, everything=True)

    def faults(self, value: Any, *, everything: bool) -> list[Fault]:
        """What is wrong with a value that does not fit a schema of the program itself.

        Args:
            value: The value.
            everything: Whether all faults are told, and not only the first one.
        """
        return self._told(value, everything=everything) if self._is_recursive else self._all(value, everything)

    @functools.cached_property
    def _is_recursive(self) -> bool:
        schema = self._schema
        return isinstance(schema, dict) and is_recursive(cast("dict[str, Any]", schema))

    def _told(self, value: Any, everything: bool) -> list[Fault]:
        if Effort(self._schema, most=_MOST_TOLD).of(value) > _MOST_TOLD:
            return [NOT_TOLD]
        return self._all(value, everything)

    def _all(self, value: Any, everything: bool) -> list[Fault]:
        if everything:
            errors = list(self._validator.iter_errors(value))
        else:
            try:
                self._validator.validate(value)
            except jsonschema_rs.ValidationError as error:
                errors = [error]
            else:
                errors = []
        return [fault for error in errors for fault in faults_in(error, self._schema)]


def schema_validator(what: str, schema: Any) -> jsonschema_rs.Validator:
    """Compile a JSON Schema. Nothing is fetched: a peer must not choose an address or a file that this process opens.

    Args:
        what: The name of the schema, for the error.
        schema: The JSON Schema.

    Raises:
        ValueError: The schema is not valid JSON Schema, or refers to something outside itself.
    """
    addresses: list[str] = []

    def refuse(address: str) -> Any:
        addresses.append(address)
        raise ValueError(address)

    try:
        return jsonschema_rs.validator_for(schema, retriever=refuse)
    except ValueError as error:
        if addresses:  # the validator replaces the message of the retriever
            step = "put that schema into $defs, and refer to it as #/$defs/NAME"
            raise ValueError(f"{what} refers to {addresses[0]:.200}, and schemas are not fetched: {step}") from error
        raise ValueError(f"{what} is not valid JSON Schema: {error}") from error
