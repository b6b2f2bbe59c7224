"""Names and topics: a name that cannot be a topic level is refused before it becomes part of a topic."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from mqtt_agent.errors import InvalidIdentifier
from mqtt_agent.wire import Topics, is_identifier, normalize_namespace, validate_identifier

good = st.from_regex(r"[A-Za-z0-9_.:-]{1,40}", fullmatch=True)


@pytest.mark.rule("NAME-1", "NAME-2", "NAME-3")
@given(st.text(max_size=300))
def test_an_identifier_is_one_topic_level_or_refused(value: str) -> None:
    if is_identifier(value):
        assert validate_identifier(value) == value
        assert Topics("ns").tool_call(value).split("/") == ["ns", "mcp", "tools", value, "call"]
        assert 0 < len(value.encode()) <= 255
    else:
        with pytest.raises(InvalidIdentifier):
            validate_identifier(value)
        with pytest.raises(InvalidIdentifier):
            Topics("ns").tool_call(value)


@pytest.mark.rule("NAME-1", "NAME-2")
@given(st.text(max_size=20), st.sampled_from("/+#\x00\x07\x7f\x85\ud800\ufdd0\ufffe\U0001ffff"), st.text(max_size=20))
def test_a_topic_character_anywhere_is_refused(before: str, bad: str, after: str) -> None:
    assert not is_identifier(before + bad + after)


@pytest.mark.rule("NAME-2")
@pytest.mark.parametrize("value", ["", "$SYS", "x" * 256, "ä" * 128, None, 7, b"x"])
def test_what_is_no_identifier_is_refused_with_a_sentence_that_says_what_to_do(value: object) -> None:
    with pytest.raises(InvalidIdentifier, match="tool name .* cannot be a topic level, because it .*: use 1 to 255"):
        validate_identifier(value, "tool name")


@pytest.mark.parametrize(
    ("value", "says"),
    [
        ("a/b", "because it contains '/': .*, such as 'a-b'$"),
        ("$SYS", r"because it begins with '\$': .*, such as 'SYS'$"),
        ("my #1\x00", r"because it contains '\\x00' '#': .*, such as 'my -1'$"),
        ("//", "because it contains '/': .* no leading '\\$'$"),
        ("x" * 256, "because it has 256 bytes: .* no leading '\\$'$"),
        (7, "because it is not a text but int"),
    ],
)
def test_the_refusal_of_a_name_says_what_is_wrong_and_suggests_a_name_like_it(value: object, says: str) -> None:
    with pytest.raises(InvalidIdentifier, match=says):
        validate_identifier(value, "agent id")


@pytest.mark.parametrize("value", ["x", "a b", "größe", "工具", "a.b:c@d~e", "x" * 255])
def test_ordinary_names_in_any_script_are_identifiers(value: str) -> None:
    assert is_identifier(value)


@given(good)
def test_the_name_on_a_card_topic_is_read_back(name: str) -> None:
    topics = Topics("a2a/v1")
    assert topics.tool_of_card(topics.tool_card(name)) == name
    assert topics.server_of_card(topics.server_card(name)) == name
    assert topics.client_of_responses(topics.client_responses(name)) == name
    assert topics.tool_of_card(topics.server_card(name)) is None


@pytest.mark.rule("NAME-3", "HOST-9")
@given(st.text(max_size=60))
def test_any_topic_is_read_as_a_name_or_as_none(topic: str) -> None:
    topics = Topics("a2a/v1")
    for read in (topics.tool_of_card, topics.server_of_card, topics.client_of_responses):
        for candidate in (topic, f"a2a/v1/mcp/tools/{topic}/card", f"a2a/v1/mcp/clients/{topic}/responses"):
            name = read(candidate)
            assert name is None or is_identifier(name)


@pytest.mark.rule(
    "TOPIC-1", "TOPIC-2", "TOPIC-3", "TOPIC-4", "TOPIC-5", "TOPIC-6", "TOPIC-7", "TOPIC-8", "SHARE-1", "NAME-5"
)
def test_the_topics_are_those_of_the_specification() -> None:
    topics = Topics()
    assert topics.server_card("s") == "a2a/v1/mcp/servers/s/card"
    assert topics.tool_card("t") == "a2a/v1/mcp/tools/t/card"
    assert topics.tool_call("t") == "a2a/v1/mcp/tools/t/call"
    assert topics.tool_call_shared("t") == "$share/mcp-tool-t/a2a/v1/mcp/tools/t/call"
    assert topics.client_responses("c") == "a2a/v1/mcp/clients/c/responses"
    assert topics.tool_stream("t", "id") == "a2a/v1/mcp/tools/t/stream/id"
    assert topics.tool_cancel("t") == "a2a/v1/mcp/tools/t/cancel"
    assert topics.server_query("s") == "a2a/v1/mcp/servers/s/query"
    assert topics.server_input("s") == "a2a/v1/mcp/servers/s/input"
    assert topics.server_request("s") == "a2a/v1/mcp/servers/s/request"
    assert topics.all_server_cards == "a2a/v1/mcp/servers/+/card"
    assert topics.all_tool_cards == "a2a/v1/mcp/tools/+/card"


@pytest.mark.rule("NAME-6")
def test_slashes_around_a_namespace_are_trimmed() -> None:
    assert normalize_namespace("/team/a/") == "team/a"


@pytest.mark.rule("NAME-7")
@pytest.mark.parametrize("namespace", ["", "/", "a//b", "a/+/b", "#", "$share/x", "a\x00b"])
def test_a_namespace_that_cannot_be_a_topic_is_refused(namespace: str) -> None:
    with pytest.raises(InvalidIdentifier):
        Topics(namespace)
