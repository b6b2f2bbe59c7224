"""A2A's parts become blocks for every adapter, and blocks become parts."""

from __future__ import annotations

from typing import Any

import pytest
from mqtt_agent.adapting.content import Data, Link, Media, Text, in_words, to_mcp
from mqtt_agent.adapting.parts import answer_of, are_plain, blocks_of, files_of, message_of, parts_of, read_blocks
from mqtt_agent.wire import Artifact, Part, TaskMessage, TaskResult

PNG = "iVBORw0KGgo="
PARTS = [
    Part(text="Look"),
    Part(raw=PNG, media_type="image/png", filename="map.png"),
    Part(url="https://trips.example/list.csv", media_type="text/csv"),
    Part(data={"budget": 300}),
]
BLOCKS = [
    Text("Look"),
    Media("image", PNG, "image/png", name="map.png"),
    Link("file", "https://trips.example/list.csv", "text/csv"),
    Data({"budget": 300}),
]


def test_parts_and_blocks_go_there_and_back() -> None:
    assert blocks_of(PARTS) == BLOCKS
    assert parts_of(BLOCKS) == PARTS
    assert files_of(BLOCKS) == BLOCKS[1:3]
    assert (are_plain(BLOCKS), are_plain(BLOCKS[:1])) == (False, True)
    assert read_blocks(message_of(BLOCKS, role="user")) == BLOCKS
    assert read_blocks(TaskMessage(content={"n": 1})) == [Data({"n": 1})]


def test_a_file_without_a_type_has_the_type_of_its_name() -> None:
    assert blocks_of([Part(raw=PNG, filename="a.pdf"), Part(raw=PNG), Part(url="https://x.example/b.jpg")]) == [
        Media("file", PNG, "application/pdf", name="a.pdf"),
        Media("file", PNG, "application/octet-stream"),
        Link("image", "https://x.example/b.jpg"),
    ]
    assert blocks_of([Part(url="http://[no-host/b.jpg")])[0] in [
        Link("file", "http://[no-host/b.jpg"),  # since Python 3.12, the type of no such address is guessed
        Link("image", "http://[no-host/b.jpg"),
    ]


def test_a_file_whose_bytes_are_not_base64_is_named() -> None:
    [block] = blocks_of([Part(raw="§", filename="a.pdf")])
    assert isinstance(block, Text)
    assert block.text.startswith("[a file that cannot be read: a.pdf:")


def test_blocks_in_words_name_each_file_and_show_data() -> None:
    assert in_words(BLOCKS).splitlines() == [
        "Look",
        "[image map.png: image/png]",
        "[file: https://trips.example/list.csv]",
        '{"budget": 300}',
    ]
    assert to_mcp([Data([1])]) == [{"type": "text", "text": "[1]"}]


@pytest.mark.parametrize(
    ("result", "blocks"),
    [
        ({"result": 1}, None),
        ({"result": "Look", "message": TaskMessage(role="agent", content="Look")}, None),
        ({"result": "Look", "message": TaskMessage(role="agent", parts=PARTS)}, BLOCKS),
        ({"artifacts": [Artifact.of_parts("map", PARTS[1:2]).as_json(), {"name": "log", "data": 1}]}, BLOCKS[1:2]),
        ({"result": 1, "artifacts": [Artifact.of_parts("map", PARTS[1:2]).as_json()]}, None),
        ({"artifacts": [{"name": "log", "data": 1}]}, None),
    ],
)
def test_an_answer_is_a_message_or_an_artifact_alone_or_a_value(result: dict[str, Any], blocks: Any) -> None:
    assert answer_of(TaskResult(task_id="t", status="completed", **result)) == blocks
    assert answer_of(None) is None


def test_an_artifact_of_another_form_is_data_and_hides_no_answer() -> None:
    odd = {"name": 5, "parts": [{"text": "a"}]}
    result = TaskResult(task_id="t", status="completed", artifacts=[{"name": "a", "parts": [{"text": "b"}]}, odd])
    assert answer_of(result) == [Text("b")]
    assert Artifact.read(odd).all_parts == [Part(data=odd)]
