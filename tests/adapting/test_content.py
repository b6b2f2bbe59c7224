"""MCP content blocks: read into one neutral form, and written back without a loss."""

from __future__ import annotations

import base64
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from mqtt_agent.adapting.content import Block, Link, Media, Text, as_text, content_of, in_words, to_mcp

PNG = base64.b64encode(b"\x89PNG").decode()

BOTH_WAYS: list[tuple[Block, dict[str, Any]]] = [
    (Text("hello"), {"type": "text", "text": "hello"}),
    (Media("image", PNG, "image/png"), {"type": "image", "data": PNG, "mimeType": "image/png"}),
    (Media("audio", PNG, "audio/wav"), {"type": "audio", "data": PNG, "mimeType": "audio/wav"}),
    (
        Media("file", PNG, "application/pdf", "file:///a.pdf"),
        {"type": "resource", "resource": {"uri": "file:///a.pdf", "mimeType": "application/pdf", "blob": PNG}},
    ),
    (
        Link("image", "https://example.org/a.png", "image/png"),
        {"type": "resource_link", "uri": "https://example.org/a.png", "name": "a.png", "mimeType": "image/png"},
    ),
    (Link("file", "s3://b/"), {"type": "resource_link", "uri": "s3://b/", "name": "s3://b/"}),
]


@pytest.mark.parametrize(("block", "written"), BOTH_WAYS, ids=lambda each: type(each).__name__)
def test_a_block_is_read_and_written(block: Block, written: dict[str, Any]) -> None:
    assert content_of(None, [written]) == [block]
    assert to_mcp([block]) == [written]


def test_the_text_of_a_resource_is_text_and_its_bytes_keep_their_kind() -> None:
    text = {"type": "resource", "resource": {"uri": "file:///a", "text": "hello"}}
    image = {"type": "resource", "resource": {"uri": "file:///a", "mimeType": "image/jpeg", "blob": PNG}}
    assert content_of(None, [text, image]) == [Text("hello"), Media("image", PNG, "image/jpeg", "file:///a")]


@pytest.mark.parametrize(
    "block",
    [
        {"type": "text"},
        {"type": "image", "data": 5},
        {"type": "resource", "resource": {"uri": "x"}},
        {"type": "resource"},
        {"type": "something-new", "of": "tomorrow"},
        {},
    ],
)
def test_a_block_that_cannot_be_read_becomes_text_with_all_of_it(block: dict[str, Any]) -> None:
    assert content_of(None, [block]) == [Text(as_text(block))]


def test_a_result_in_mcps_own_form_has_blocks_and_any_other_result_has_none() -> None:
    assert content_of({"content": [{"type": "text", "text": "hello"}]}) == [Text("hello")]
    for result in ("text", 5, None, {"content": "text"}, {"content": []}, {"content": [{"type": "invoice"}]}, ["text"]):
        assert content_of(result) is None


@pytest.mark.parametrize(
    "result",
    [
        {"content": [{"type": "text", "text": "hello"}], "title": "Greeting"},
        {"content": [{"type": "text", "text": "hello", "author": "Ada"}]},
        {"content": [{"type": "image", "name": "a.png", "size": 5}]},
        {"content": [{"type": "resource", "resource": "desk"}]},
        {"content": [{"type": ["text"], "text": "hello"}]},
    ],
)
def test_data_with_a_type_or_a_content_is_no_content(result: dict[str, Any]) -> None:
    assert content_of(result) is None


def test_a_result_with_all_that_mcp_knows_has_blocks() -> None:
    block = {"type": "text", "text": "hello", "annotations": None, "_meta": None}
    link = {"type": "resource_link", "uri": "s3://b/a", "name": "a", "title": "A", "description": None, "size": 1}
    result = {"_meta": None, "content": [block, link], "structuredContent": None, "isError": False}
    assert content_of(result) == [Text("hello"), Link("file", "s3://b/a")]


def test_a_large_content_is_text_that_says_how_a_program_reads_it() -> None:
    uri = "mqtt-agent:content/export%3Aa/7f3a"
    link = {"type": "resource_link", "uri": uri, "name": "2025.csv", "size": 104857600, "mimeType": "text/csv"}
    said = "[2025.csv: a content of 104,857,600 bytes, which is too large to be shown here."
    said += f" A program reads it with ToolClient.open_content({uri!r})]"
    assert content_of({"uri": uri}, [link]) == content_of({"content": [link]}) == [Text(said)]


def test_blocks_beside_a_result_win_over_those_inside() -> None:
    assert content_of({"content": [{"type": "text", "text": "in"}]}, [{"type": "text", "text": "out"}]) == [Text("out")]


def test_blocks_in_words_keep_their_text_and_name_what_is_no_text() -> None:
    blocks = [
        Text("two files:"),
        Media("image", PNG, "image/png"),
        Media("file", PNG, "text/csv", "file:///a.csv"),
        Link("audio", "s3://b/c"),
    ]
    assert in_words(blocks) == "two files:\n[image: image/png]\n[file: file:///a.csv]\n[audio: s3://b/c]"


def test_bytes_that_are_no_base64_are_told() -> None:
    assert Media("image", PNG, "image/png").decoded() == b"\x89PNG"
    with pytest.raises(ValueError, match="base64"):
        Media("image", "§", "image/png").decoded()


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=8,
)


@given(
    st.lists(
        st.dictionaries(st.sampled_from(["type", "text", "data", "mimeType", "uri", "resource", "blob"]), JSON),
        min_size=1,
        max_size=3,
    )
)
def test_whatever_a_server_sends_as_blocks_can_be_read_and_written(blocks: list[dict[str, Any]]) -> None:
    read = content_of(None, blocks)
    assert read is not None
    assert len(to_mcp(read)) == len(blocks)
