"""Compiles JSON Schemas that may come from a peer, and says what is wrong with a value that does not fit."""

from __future__ import annotations

from typing import Any

import jsonschema_rs

__all__ = ["faults_in", "schema_validator"]


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


def faults_in(error: jsonschema_rs.ValidationError) -> list[tuple[list[str | int], str]]:
    """The faults of a value: the path of each, and what is wrong there.

    Of several alternatives, such as an object or null, the closest one counts: without this choice, the error would
    only say that the value fits none of them.
    """
    path, branches = list(error.instance_path), getattr(error.kind, "context", None)
    if not branches:
        return [(path, error.message)]
    of_this_type = [each for each in branches if not any(_is_of_another_type(one, path) for one in each)]
    tagged = [each for each in of_this_type if not any(_is_of_another_kind(one) for one in each)]
    for close in (tagged, of_this_type):
        if len(close) == 1:
            return [fault for one in close[0] for fault in faults_in(one)]
    if of_this_type and not tagged:
        said = [
            (list(one.instance_path), one.message) for each in of_this_type for one in each if _is_of_another_kind(one)
        ]
        return list({(tuple(where), what): (where, what) for where, what in said}.values())
    reasons = dict.fromkeys(one.message for each in branches for one in each)
    return [(path, f"{error.message}: {'; '.join(reasons)}" if reasons else error.message)]


def _is_of_another_type(error: jsonschema_rs.ValidationError, path: list[Any]) -> bool:
    return isinstance(error.kind, jsonschema_rs.ValidationErrorKind.Type) and list(error.instance_path) == path


def _is_of_another_kind(error: jsonschema_rs.ValidationError) -> bool:
    """Whether a constant differs, which in a union of objects usually says which object is meant."""
    return isinstance(error.kind, (jsonschema_rs.ValidationErrorKind.Constant, jsonschema_rs.ValidationErrorKind.Enum))
