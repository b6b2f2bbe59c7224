"""Compiles JSON Schemas that may come from a peer."""

from __future__ import annotations

from typing import Any

import jsonschema_rs

__all__ = ["schema_validator"]


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
