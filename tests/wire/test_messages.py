"""Messages: every valid message round-trips, and everything else gives one clear error."""

from __future__ import annotations

import enum
import json
import re
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from mqtt_agent.errors import WireError
from mqtt_agent.wire import (
    Call,
    CallFault,
    Cancel,
    Message,
    Response,
    ServerCard,
    StreamMessage,
    TaskEvent,
    ToolAnnotations,
    ToolCard,
    VersionInfo,
    checked_json,
    decode,
    encode,
    read_error_type,
    read_time,
    to_json,
    utc_now,
)
from pydantic import BaseModel


class Price(BaseModel):
    """A model of a user, which pydantic writes with null for NaN."""

    number: float


MODELS: list[type[Message]] = [Call, Cancel, Response, ServerCard, StreamMessage, ToolCard]

text = st.text(st.characters(exclude_categories=["Cs"]), max_size=40)
wild = st.text(st.characters(), max_size=40)
names = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=40)
floats = st.floats(allow_nan=False, allow_infinity=False)
json_values = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | floats | text,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(text, inner, max_size=4),
    max_leaves=12,
)
json_objects = st.dictionaries(text, json_values, max_size=4)


def maybe(strategy: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    return st.none() | strategy


versions = st.builds(VersionInfo, sdk=maybe(text), tool=maybe(text))
calls = st.builds(
    Call, call_id=names, arguments=json_objects, client=text, response_topic=maybe(text), stream=maybe(st.booleans())
)
errors = st.builds(
    CallFault, type=text, message=text, code=maybe(text), data=json_values, retryable=maybe(st.booleans())
)
responses = st.builds(
    Response,
    call_id=text,
    status=text,
    result=json_values,
    error=maybe(errors),
    elapsed_ms=maybe(floats),
    server=maybe(text),
    seq=maybe(st.integers(0, 2**53)),
    content=maybe(st.lists(json_objects, max_size=2)),
)
streams = st.builds(
    StreamMessage,
    call_id=text,
    seq=st.integers(0, 2**53),
    type=text,
    content=maybe(text),
    data=json_values,
    server=maybe(text),
)
statuses = st.sampled_from(["online", "offline"])
server_cards = st.builds(
    ServerCard,
    server=text,
    namespace=text,
    tools=st.lists(text, max_size=4),
    version_info=maybe(versions),
    status=statuses,
    name=maybe(text),
    replica=maybe(text),
    agent=maybe(text),
)
annotations = st.builds(ToolAnnotations, title=maybe(text), readOnlyHint=maybe(st.booleans()))
tool_cards = st.builds(
    ToolCard,
    tool=text,
    server=text,
    namespace=text,
    description=text,
    input_schema=json_objects,
    output_schema=maybe(json_objects),
    supports_streaming=st.booleans(),
    requires_auth=st.booleans(),
    allowed_callers=maybe(st.lists(text, max_size=3)),
    version_info=maybe(versions),
    status=statuses,
    title=maybe(text),
    annotations=maybe(annotations),
    features=maybe(st.lists(text, max_size=3)),
    icons=maybe(st.lists(json_objects, max_size=2)),
    meta=maybe(json_objects),
)
cancels = st.builds(Cancel, call_id=names, client=text, reason=maybe(text))
messages = st.one_of(calls, responses, streams, server_cards, tool_cards, cancels)


@pytest.mark.rule("JSON-1")
@given(messages)
def test_every_message_survives_the_way_to_bytes_and_back(message: Message) -> None:
    assert decode(type(message), encode(message)) == message


@pytest.mark.rule("JSON-3")
@given(messages)
def test_no_field_that_is_none_is_written(message: Message) -> None:
    written = json.loads(encode(message))
    assert all(value is not None for value in written.values())
    assert set(written) == {name for name in type(message).model_fields if getattr(message, name) is not None}


@pytest.mark.rule("HOST-1")
@given(st.sampled_from(MODELS), st.binary(max_size=200))
def test_any_bytes_are_a_message_or_one_clear_error(model: type[Message], payload: bytes) -> None:
    try:
        message = decode(model, payload)
    except WireError as error:
        assert str(error).startswith(model.__name__)
    else:
        assert isinstance(message, model)


@pytest.mark.rule("HOST-1")
@given(st.sampled_from(MODELS), json_values)
def test_any_json_is_a_message_or_one_clear_error(model: type[Message], value: Any) -> None:
    try:
        message = decode(model, json.dumps(value).encode())
    except WireError as error:
        assert str(error).startswith(model.__name__)
    else:
        assert isinstance(message, model)


@pytest.mark.rule("HOST-1")
@given(messages, st.data())
def test_a_message_with_one_field_of_any_other_type_is_a_message_or_one_clear_error(
    message: Message, data: st.DataObject
) -> None:
    fields = json.loads(encode(message))
    fields[data.draw(st.sampled_from(sorted(fields)))] = data.draw(json_values)
    try:
        decode(type(message), json.dumps(fields).encode())
    except WireError as error:
        assert str(error).startswith(type(message).__name__)


@given(messages, st.data())
def test_a_message_cut_short_is_an_error(message: Message, data: st.DataObject) -> None:
    payload = encode(message)
    with pytest.raises(WireError):
        decode(type(message), payload[: data.draw(st.integers(0, len(payload) - 1))])


@pytest.mark.rule("JSON-1", "JSON-4", "NAME-4", "HOST-1", "LIMIT-4")
@pytest.mark.parametrize(
    "payload",
    [
        b"",
        b"null",
        b"[]",
        b'"text"',
        b"{",
        b"\xff\xfe",
        b"[" * 100_000,
        b'{"a":' * 100_000,
        b'{"call_id": NaN}',
        b'{"call_id": "a", "client": "b", "arguments": {"x": Infinity}}',
        b'{"call_id": "\\ud800", "client": "b"}',
        b'{"call_id": 1, "client": "b"}',
        b'{"call_id": "", "client": "b"}',
        b'{"client": "b"}',
        b'{"call_id": "a", "client": "b", "arguments": []}',
        b'{"call_id": "a", "client": "b", "arguments": {"x": ' + b"1" * 5000 + b"}}",
    ],
)
def test_what_is_no_call_is_one_clear_error(payload: bytes) -> None:
    with pytest.raises(WireError, match="^Call: "):
        decode(Call, payload)


def test_the_words_nan_and_infinity_are_fine_inside_strings() -> None:
    call = Call(call_id="a", client="b", arguments={"q": "NaN and Infinity"})
    assert decode(Call, encode(call)).arguments == {"q": "NaN and Infinity"}


@pytest.mark.rule("LIMIT-1")
def test_a_payload_over_the_limit_is_not_even_parsed() -> None:
    with pytest.raises(WireError, match="more than the limit of 10: send less"):
        decode(Call, b"x" * 11, max_bytes=10)


@pytest.mark.rule("LIMIT-1")
def test_a_payload_of_exactly_the_limit_is_read() -> None:
    payload = b'{"call_id": "a", "client": "b"}'
    assert decode(Call, payload, max_bytes=len(payload)).call_id == "a"
    with pytest.raises(WireError, match="more than the limit of 30"):
        decode(Call, payload, max_bytes=len(payload) - 1)


@pytest.mark.rule("JSON-2")
def test_unknown_fields_are_ignored() -> None:
    call = decode(Call, b'{"call_id": "a", "client": "b", "from_the_future": [1], "timestamp": "t"}')
    assert call == Call(call_id="a", client="b", timestamp="t")


@pytest.mark.rule("JSON-3")
def test_null_inside_a_result_is_kept() -> None:
    response = Response(call_id="a", result={"x": None, "y": [None]})
    assert decode(Response, encode(response)).result == {"x": None, "y": [None]}


@pytest.mark.rule("RESP-5")
def test_a_response_without_a_result_means_null() -> None:
    assert decode(Response, b'{"call_id": "a", "status": "ok"}').result is None


@pytest.mark.rule("JSON-4")
@pytest.mark.parametrize("number", [float("nan"), float("inf"), float("-inf")])
def test_numbers_that_json_does_not_have_are_not_written(number: float) -> None:
    for value in ([number], {"a": {"b": number}}, Price(number=number)):
        with pytest.raises(WireError, match=r"result.* is (NaN|-?Infinity); JSON has no such number"):
            encode(Response(call_id="a", result=to_json(value)))
        with pytest.raises(WireError, match=r"x.* is (NaN|-?Infinity); JSON has no such number"):
            checked_json(value, "x")
    with pytest.raises(WireError, match=r"progress is (NaN|-?Infinity)"):
        encode(TaskEvent(task_id="a", type="progress", progress=number))


@pytest.mark.rule("JSON-6")
@given(st.recursive(wild, lambda inner: st.lists(inner) | st.dictionaries(wild, inner)))
def test_any_text_can_be_written_and_only_surrogates_change(value: Any) -> None:
    written = json.loads(encode(Response(call_id="a", result=to_json(value))))["result"]
    assert written == checked_json(value)
    text = json.dumps(value, ensure_ascii=False)
    if not re.search("[\ud800-\udfff]", text):
        assert written == value
    json.dumps(written, ensure_ascii=False).encode()


def test_two_surrogates_that_are_a_pair_become_their_character() -> None:
    assert json.loads(encode(Response(call_id="a", result="\ud83d\ude00")))["result"] == "😀"


class Name(str):
    """A text of another library, as in BeautifulSoup and NumPy."""


class Label(str, enum.Enum):
    ODD = "a\udcff"


@dataclass
class Pair:
    name: Any
    rows: Any = None


@pytest.mark.rule("JSON-6")
@pytest.mark.parametrize("text", [Name("a\udcff"), Label.ODD], ids=["subclass", "enum"])
def test_a_kind_of_str_is_mended_like_a_str(text: str) -> None:
    value = [text, {text: Name("ok")}, Pair(text)]
    mended = ["a\ufffd", {"a\ufffd": "ok"}, {"name": "a\ufffd", "rows": None}]
    assert json.loads(encode(Response(call_id="a", result=to_json(value))))["result"] == mended
    assert checked_json(value) == mended


def written(value: Any) -> Any:
    return json.loads(encode(Response(call_id="a", result=to_json(value, "x"))))["result"]


@pytest.mark.rule("JSON-6")
@pytest.mark.parametrize("convert", [written, lambda value: checked_json(value, "x")])
def test_an_iterator_never_becomes_an_empty_list(convert: Callable[[Any], Any]) -> None:
    assert convert(number for number in [1, 2]) == [1, 2]
    assert convert({"rows": (text for text in ["a", "\udcff"])}) == {"rows": ["a", "\ufffd"]}
    with pytest.raises(WireError, match=r"\[1\] is NaN"):
        convert(map(float, ["1", "nan"]))
    with pytest.raises(WireError, match=r"^x is an iterator, .*: use a list"):
        convert(each for each in [1, object()])
    with pytest.raises(WireError, match=r"^x\[0\]\.rows is an iterator"):
        convert([Pair("a", iter([1])), Name("\udcff")])


@pytest.mark.parametrize("convert", [written, lambda value: checked_json(value, "x")])
def test_numbers_and_arrays_of_numpy_ranges_and_views_of_dicts_are_plain_json(convert: Callable[[Any], Any]) -> None:
    numpy = pytest.importorskip("numpy")
    counted = {numpy.int64(3): numpy.int64(4), "rate": numpy.float32(0.5), "late": numpy.bool_(True)}
    assert convert(counted) == {"3": 4, "rate": 0.5, "late": True}
    assert convert({"table": numpy.arange(4).reshape(2, 2), "text \udcff": range(2)}) == {
        "table": [[0, 1], [2, 3]],
        "text \ufffd": [0, 1],
    }
    assert convert([{"a": 1}.keys(), {"a": 1}.values()]) == [["a"], [1]]
    with pytest.raises(WireError, match=r"\[0\] is NaN"):
        convert(numpy.array([numpy.nan]))


def test_a_dataclass_that_contains_itself_is_a_clear_error() -> None:
    pair = Pair(None)
    pair.name, pair.rows = pair, [pair, pair]
    with pytest.raises(WireError, match="contains itself"):
        checked_json(pair)


@pytest.mark.rule("LIMIT-4", "LIMIT-9")
def test_what_is_written_can_be_read() -> None:
    def nested(depth: int) -> Any:
        return 1 if depth == 0 else [nested(depth - 1)]

    assert decode(Response, encode(Response(call_id="a", result=nested(199)))).result == nested(199)
    with pytest.raises(WireError, match=r"result.* is nested deeper than 200 levels"):
        encode(Response(call_id="a", result=nested(200)))
    brackets = ["[" * 500, {"{": "[{" * 500}, *({"a": [1]} for _ in range(500))]
    assert decode(Response, encode(Response(call_id="a", result=brackets))).result == brackets
    assert checked_json(nested(190)) == nested(190)
    with pytest.raises(WireError, match="nested deeper than 190 levels"):
        checked_json(nested(191))


@pytest.mark.parametrize("value", [object(), b"\xff"])
def test_a_value_without_json_form_is_a_clear_error(value: Any) -> None:
    with pytest.raises(WireError, match="JSON"):
        encode(Response(call_id="a", result=value))


def test_a_list_that_contains_itself_is_a_clear_error() -> None:
    endless: list[Any] = []
    endless.append(endless)
    with pytest.raises(WireError, match="JSON"):
        encode(Response(call_id="a", result=endless))
    with pytest.raises(WireError, match="contains itself"):
        checked_json({"a": endless})
    with pytest.raises(WireError, match="JSON"):
        to_json(endless)


@pytest.mark.rule("RESP-4")
def test_an_unknown_error_type_reads_as_tool_error() -> None:
    assert read_error_type("no_such_type") == "tool_error"
    assert read_error_type("timeout") == "timeout"


@pytest.mark.rule("JSON-5")
def test_times_are_utc_with_milliseconds_and_z() -> None:
    assert json.loads(encode(Call(call_id="a", client="b")))["timestamp"].endswith("Z")
    before = time.time()
    told = utc_now()
    assert len(told) == len("2026-04-21T10:00:05.123Z")
    assert before - 0.002 <= (read_time(told) or 0) <= time.time()


@pytest.mark.rule("JSON-5")
def test_the_second_of_a_time_is_the_present_one(monkeypatch: pytest.MonkeyPatch) -> None:
    for seconds, text in (
        (1_776_765_605.25, "2026-04-21T10:00:05.250Z"),
        (1_776_765_605.9996, "2026-04-21T10:00:05.999Z"),
        (1_776_765_606.0, "2026-04-21T10:00:06.000Z"),
        (1_776_765_599.5, "2026-04-21T09:59:59.500Z"),
    ):
        monkeypatch.setattr(time, "time", lambda seconds=seconds: seconds)
        assert utc_now() == text


@pytest.mark.rule("TCARD-1")
def test_a_card_of_the_specification_is_read() -> None:
    card = decode(
        ToolCard,
        json.dumps(
            {
                "version": "1",
                "tool": "query",
                "server": "data",
                "namespace": "team",
                "description": "Query rows.",
                "input_schema": {"type": "object", "properties": {}, "additionalProperties": False},
                "supports_streaming": False,
                "requires_auth": True,
                "allowed_callers": ["scout"],
                "version_info": {"sdk": "0.1.0", "tool": "1.0.0"},
                "status": "online",
                "last_seen": "2026-04-21T10:00:00Z",
            }
        ).encode(),
    )
    assert card.tool == "query"
    assert card.version_info == VersionInfo(sdk="0.1.0", tool="1.0.0")
    assert not card.read_only
