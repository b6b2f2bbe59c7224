"""From functions to schemas, and from JSON arguments to calls."""

from __future__ import annotations

import datetime
import enum
import functools
import math
from dataclasses import dataclass, field
from typing import Annotated, Any, Literal

import pytest
from mqtt_agent import ToolContext
from mqtt_agent.errors import InvalidArguments
from mqtt_agent.sync import ToolContext as SyncToolContext
from mqtt_agent.tools.serving.context import CallStream
from mqtt_agent.tools.serving.function import ToolFunction
from pydantic import BaseModel, ConfigDict, Field
from typing_extensions import TypedDict


class Place(BaseModel):
    city: str
    country: str = "NO"


@dataclass
class Weather:
    degrees: float


class Row(TypedDict):
    id: int


def context() -> ToolContext:
    stream = CallStream("id", None)
    return ToolContext(call_id="id", tool="t", client="c", server="s", stream=stream)


async def call(function: ToolFunction, arguments: dict[str, Any]) -> Any:
    result = function.bind(arguments, context())()
    return await result if function.is_async else result


async def test_a_schema_is_made_from_the_parameters() -> None:
    async def forecast(
        city: Annotated[str, Field(description="Where", min_length=1)],
        days: int = 3,
        unit: Literal["C", "F"] = "C",
        at: list[float] | None = None,
    ) -> str:
        return f"{city} {days} {unit} {at}"

    function = ToolFunction("forecast", forecast)
    schema = function.input_schema
    assert schema["type"] == "object"
    assert schema["required"] == ["city"]
    assert schema["properties"]["city"] == {"type": "string", "description": "Where", "minLength": 1}
    assert schema["properties"]["days"] == {"type": "integer", "default": 3}
    assert schema["properties"]["unit"]["enum"] == ["C", "F"]
    assert await call(function, {"city": "Oslo", "at": [1.5]}) == "Oslo 3 C [1.5]"


async def test_models_arrive_as_models() -> None:
    def show(place: Place, more: list[Place]) -> str:
        return f"{type(place).__name__} {place.country} {more[0].city}"

    function = ToolFunction("show", show)
    assert await call(function, {"place": {"city": "Oslo"}, "more": [{"city": "Bergen"}]}) == "Place NO Bergen"


@pytest.mark.parametrize("name", ["schema", "copy", "json", "model_config", "self_", "config", "kwargs", "validate"])
async def test_a_parameter_may_have_any_name(name: str) -> None:
    scope: dict[str, Any] = {}
    exec(f"def tool({name}: int, _private: int = 2) -> int: return {name} + _private", scope)
    function = ToolFunction("tool", scope["tool"])
    assert set(function.input_schema["properties"]) == {name, "_private"}
    assert await call(function, {name: 1}) == 3
    assert await call(function, {name: 1, "_private": 5}) == 6


async def test_the_context_is_no_argument() -> None:
    async def tool(n: int, ctx: ToolContext) -> str:
        return f"{n} {ctx.call_id}"

    def plain(n: int, ctx: SyncToolContext) -> str:
        return f"{n} {type(ctx).__name__}"

    for handler, result in ((tool, "1 id"), (plain, "1 SyncToolContext")):
        function = ToolFunction("tool", handler)
        assert set(function.input_schema["properties"]) == {"n"}
        assert function.wants_context
        assert await call(function, {"n": 1}) == result


async def test_methods_partials_and_callable_objects_are_tools_too() -> None:
    class Counter:
        def add(self, n: int) -> int:
            return n + 1

        async def __call__(self, n: int) -> int:
            return n + 2

    def power(n: int, exponent: int) -> int:
        return n**exponent

    assert await call(ToolFunction("add", Counter().add), {"n": 1}) == 2
    assert await call(ToolFunction("object", Counter()), {"n": 1}) == 3
    assert await call(ToolFunction("square", functools.partial(power, exponent=2)), {"n": 3}) == 9


async def test_positional_only_parameters_are_passed_by_position() -> None:
    def tool(a: int, /, b: int = 2) -> int:
        return a * b

    assert await call(ToolFunction("tool", tool), {"a": 4}) == 8


@pytest.mark.parametrize(
    ("arguments", "path"),
    [
        ({}, "/place"),
        ({"place": {}, "days": 1}, "/place/city"),
        ({"place": {"city": 5}, "days": 1}, "/place/city"),
        ({"place": {"city": "x"}, "days": "3"}, "/days"),
        ({"place": {"city": "x"}, "days": 0}, "/days"),
    ],
)
async def test_what_does_not_fit_is_refused_with_its_path(arguments: dict[str, Any], path: str) -> None:
    def tool(place: Place, days: Annotated[int, Field(ge=1)]) -> None:
        raise AssertionError("never called")

    with pytest.raises(InvalidArguments) as caught:
        await call(ToolFunction("tool", tool), arguments)
    assert path in [fault["path"] for fault in caught.value.data]
    assert f"argument '{path[1:].replace('/', '.')}' " in str(caught.value)


async def test_a_schema_of_ones_own_gives_keywords_or_the_whole() -> None:
    schema = {"type": "object", "properties": {"a": {"type": "integer"}, "b": {"type": "integer"}}, "required": ["a"]}

    def by_keyword(a: int, b: int = 1) -> int:
        return a + b

    def any_keyword(**arguments: int) -> int:
        return sum(arguments.values())

    async def whole(arguments: dict[str, int], ctx: ToolContext) -> int:
        return len(arguments)

    assert await call(ToolFunction("t", by_keyword, schema), {"a": 1}) == 2
    assert await call(ToolFunction("t", any_keyword, schema), {"a": 1, "b": 5}) == 6
    assert await call(ToolFunction("t", whole, schema), {"a": 1, "b": 5}) == 2
    with pytest.raises(InvalidArguments, match="argument 'a' must be a whole number, not the text \"x\""):
        await call(ToolFunction("t", whole, schema), {"a": "x"})


@pytest.mark.rule("TCARD-8")
@pytest.mark.parametrize(
    "schema",
    [
        {"type": "array"},
        {"type": "object", "properties": {"a": {"type": "nonsense"}}},
        {"type": "object", "properties": {"a": {"$ref": "#/$defs/missing"}}},
        {"type": "object", "properties": {"a": {"pattern": "("}}},
        {"type": "object", "properties": {"a": {"$ref": "http://127.0.0.1:1/schema.json"}}},
        {"type": "object", "properties": {"a": {"$ref": "file:///etc/passwd"}}},
    ],
)
def test_a_schema_that_is_not_valid_or_leads_outside_is_refused_when_the_tool_is_offered(
    schema: dict[str, Any],
) -> None:
    with pytest.raises(ValueError, match="tool 't': the input schema"):
        ToolFunction("t", lambda **arguments: None, schema)


def test_parameters_without_a_schema_are_refused_with_the_way_out() -> None:
    def tool(*numbers: int) -> None: ...

    def odd(thing: socket_like) -> None: ...  # type: ignore[name-defined]  # noqa: F821

    with pytest.raises(TypeError, match=r"\*numbers: int has no schema: .*input_schema="):
        ToolFunction("tool", tool)
    with pytest.raises(TypeError, match="annotations cannot be resolved"):
        ToolFunction("odd", odd)


def test_a_structured_return_type_makes_the_output_schema() -> None:
    def model() -> Place: ...
    def data() -> Weather: ...
    def row() -> Row: ...
    def loose() -> dict[str, Any]: ...

    for handler, name in ((model, "city"), (data, "degrees"), (row, "id")):
        schema = ToolFunction("t", handler).output_schema
        assert schema is not None
        assert name in schema["properties"]
    assert ToolFunction("t", loose).output_schema is None


async def test_a_parameter_that_the_schema_does_not_show_cannot_be_set_by_a_call() -> None:
    schema = {"type": "object", "properties": {"city": {"type": "string"}}, "additionalProperties": True}

    def plain(city: str = "", user: str = "guest") -> str:
        return f"{city} {user}"

    def catch_all(city: str = "", user: str = "guest", *, ctx: ToolContext, **others: Any) -> str:
        return f"{city} {user} {others} {type(ctx).__name__}"

    for handler in (plain, catch_all):
        function = ToolFunction("forecast", handler, schema)
        with pytest.raises(InvalidArguments, match="argument 'user' does not exist") as refused:
            await call(function, {"city": "Oslo", "user": "admin"})
        assert refused.value.data == [{"path": "/user", "message": "does not exist"}]
    with pytest.raises(InvalidArguments, match="'ctx' does not exist"):
        await call(function, {"city": "Oslo", "ctx": "mine"})
    with pytest.raises(InvalidArguments, match="'days' does not exist"):
        await call(ToolFunction("forecast", plain, schema), {"days": 3})
    assert await call(function, {"city": "Oslo", "others": 1}) == "Oslo guest {'others': 1} SyncToolContext"


def test_an_argument_with_the_name_of_the_context_parameter_is_refused_at_the_start() -> None:
    def handler(ctx: ToolContext, **arguments: Any) -> None: ...

    schema = {"type": "object", "properties": {"ctx": {"type": "string"}}}
    with pytest.raises(TypeError, match="tool 'run': the parameter 'ctx' gets the context of the call"):
        ToolFunction("run", handler, schema)


async def test_a_handler_can_check_the_arguments_itself() -> None:
    schema = {"type": "object", "properties": {"n": {"type": "integer"}}}
    function = ToolFunction("double", lambda arguments: 2 * int(arguments["n"]), schema, validate=False)
    assert await call(function, {"n": "5"}) == 10


async def test_a_default_and_an_alias_in_a_field_are_those_of_the_argument() -> None:
    def find(
        words: Annotated[list[str], Field(default_factory=list)],
        limit: int = Field(3, ge=1),
        tags: list[str] = Field(default_factory=list),  # noqa: B008
        page: Annotated[int, Field(alias="pageNumber")] = 1,
        size: int = Field(20, alias="pageSize"),
    ) -> list[Any]:
        return [words, limit, tags, page, size]

    function = ToolFunction("find", find)
    assert list(function.input_schema["properties"]) == ["words", "limit", "tags", "pageNumber", "pageSize"]
    assert "required" not in function.input_schema
    assert await call(function, {}) == [[], 3, [], 1, 20]
    given = {"words": ["a"], "limit": 1, "tags": ["b"], "pageNumber": 2, "pageSize": 5}
    assert await call(function, given) == [["a"], 1, ["b"], 2, 5]


def test_a_method_without_its_object_is_refused_with_what_to_do() -> None:
    class Shop:
        def buy(self, item: str) -> str:
            return item

    with pytest.raises(TypeError, match=r"class Shop, without an object.*shop\.buy"):
        ToolFunction("buy", Shop.buy)
    assert list(ToolFunction("buy", Shop().buy).input_schema["properties"]) == ["item"]


class Cat(BaseModel):
    kind: Literal["cat"]
    lives: int = 9


class Dog(BaseModel):
    kind: Literal["dog"]
    name: str


@pytest.mark.parametrize(
    ("pet", "path", "what"),
    [
        ({"kind": "dog"}, "/pet/name", "is missing"),
        ({"kind": "cat", "lives": "x"}, "/pet/lives", 'must be a whole number, not the text "x"'),
        ({"kind": "cow"}, "/pet/kind", 'must be one of "cat", "dog", not the text "cow"'),
        (3, "/pet", "must be an object, not 3"),
    ],
)
async def test_of_several_alternatives_the_error_tells_what_is_wrong_with_the_closest_one(
    pet: Any, path: str, what: str
) -> None:
    def feed(pet: Annotated[Cat | Dog, Field(discriminator="kind")] | None = None) -> str:
        return "fed"

    with pytest.raises(InvalidArguments) as refused:
        await call(ToolFunction("feed", feed), {"pet": pet})
    assert any(path == fault["path"] and what in fault["message"] for fault in refused.value.data)


class Color(enum.Enum):
    RED = "red"
    BLUE = "blue"


class Strict(BaseModel):
    model_config = ConfigDict(strict=True)

    on: datetime.date
    tags: set[str]
    color: Color


async def test_a_strict_model_takes_the_form_that_json_has_for_its_values() -> None:
    def show(each: Strict, color: Annotated[Color, Field(strict=True)]) -> str:
        return f"{each.on.year} {each.tags} {each.color.name} {color.name}"

    function = ToolFunction("show", show)
    given = {"each": {"on": "2020-01-31", "tags": ["a"], "color": "blue"}, "color": "red"}
    assert await call(function, given) == "2020 {'a'} BLUE RED"
    with pytest.raises(InvalidArguments, match="each.on"):
        await call(function, given | {"each": {"on": "tomorrow", "tags": [], "color": "red"}})


async def test_a_partial_function_that_is_wrapped_shows_only_what_is_not_bound() -> None:
    def move(unit: str, x: int, y: int = 0) -> str:
        return f"{unit} {x} {y}"

    for partial, schema in (
        (functools.partial(move, "mm"), {"x", "y"}),
        (functools.partial(functools.partial(move, "mm"), y=5), {"x", "y"}),
    ):
        function = ToolFunction("move", functools.update_wrapper(partial, move))
        assert set(function.input_schema["properties"]) == schema
        assert function.input_schema["required"] == ["x"]
        assert (await call(function, {"x": 1})).startswith("mm 1 ")


async def test_a_wrapper_that_names_its_parameters_shows_them_and_not_those_of_what_it_wraps() -> None:
    def move(database: object, x: int) -> list[Any]:
        return [database, x]

    @functools.wraps(move)
    def with_database(x: int) -> list[Any]:
        return move("database", x)

    function = ToolFunction("move", with_database)
    assert function.input_schema["properties"] == {"x": {"type": "integer"}}
    assert await call(function, {"x": 1}) == ["database", 1]


async def test_a_wrapper_that_takes_no_names_gets_its_arguments_by_position() -> None:
    def move(x: int = 1, y: int = 2) -> list[int]:
        return [x, y]

    @functools.wraps(move)
    def log(*places: int) -> list[int]:
        return move(*places)

    assert await call(ToolFunction("move", log), {"y": 5}) == [1, 5]
    assert await call(ToolFunction("move", log), {}) == [1, 2]


async def test_a_positional_only_parameter_without_a_value_keeps_its_default() -> None:
    def move(x: int = 1, y: int = 2, /, z: int = 3) -> list[int]:
        return [x, y, z]

    assert await call(ToolFunction("move", move), {"y": 5, "z": 6}) == [1, 5, 6]
    assert await call(ToolFunction("move", move), {"z": 6}) == [1, 2, 6]


def test_a_text_beside_the_type_describes_the_argument() -> None:
    def forecast(
        city: Annotated[str, "The city"],
        days: Annotated[int, "Not this", Field(description="How many days", ge=1)] = 3,
        unit: Annotated[str, "Not this"] = Field("C", description="The unit"),
    ) -> str:
        return f"{city} {days} {unit}"

    properties = ToolFunction("forecast", forecast).input_schema["properties"]
    assert properties["city"] == {"type": "string", "description": "The city"}
    assert (properties["days"]["description"], properties["unit"]["description"]) == ("How many days", "The unit")


async def test_a_default_that_json_cannot_carry_is_left_out_of_the_schema() -> None:
    @dataclass
    class Filter:
        words: list[str] = field(default_factory=list)

    def find(most: float = math.inf, key: bytes = b"\xff", by: Filter | None = None) -> str:
        return f"{most} {key!r}"

    function = ToolFunction("find", find)
    assert "default" not in function.input_schema["properties"]["most"]
    assert "default" not in function.input_schema["properties"]["key"]
    assert await call(function, {}) == "inf b'\\xff'"


async def test_annotations_may_name_what_the_function_around_the_handler_defines() -> None:
    class Local(BaseModel):
        n: int

    def double(each: Local) -> int:
        return each.n * 2

    @functools.wraps(double)
    async def wrapped(*args: Any, **options: Any) -> int:
        return double(*args, **options)

    for handler in (double, wrapped, functools.partial(double)):
        assert await call(ToolFunction("double", handler), {"each": {"n": 2}}) == 4


async def test_only_the_schema_of_the_result_needs_the_annotation_of_the_result() -> None:
    def double(n: int) -> Unknown:  # type: ignore[name-defined]  # noqa: F821
        return n * 2

    function = ToolFunction("double", double)
    assert function.input_schema["properties"] == {"n": {"type": "integer"}}
    assert (await call(function, {"n": 2}), function.output_schema) == (4, None)

    def half(n: Unknown) -> int: ...  # type: ignore[name-defined]  # noqa: F821

    with pytest.raises(TypeError, match="annotations cannot be resolved .name 'Unknown'"):
        ToolFunction("half", half)


def test_a_function_whose_parameters_python_does_not_know_is_refused_with_what_to_do() -> None:
    with pytest.raises(TypeError, match="tool 'max': .*: write a function with parameters around it"):
        ToolFunction("max", max)
