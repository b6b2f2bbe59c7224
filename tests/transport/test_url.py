"""Broker URLs."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from mqtt_agent.transport import BrokerSettings, BrokerURL, Password, Token


@pytest.mark.parametrize(
    ("text", "scheme", "host", "port", "path"),
    [
        ("mqtt://h", "mqtt", "h", 1883, ""),
        ("mqtts://h", "mqtts", "h", 8883, ""),
        ("ws://h", "ws", "h", 80, "/mqtt"),
        ("wss://h:9443/ws", "wss", "h", 9443, "/ws"),
        ("mqtt://[::1]:1884", "mqtt", "::1", 1884, ""),
    ],
)
def test_a_url_is_read(text: str, scheme: str, host: str, port: int, path: str) -> None:
    url = BrokerURL.parse(text)
    assert (url.scheme, url.host, url.port, url.path) == (scheme, host, port, path)


def test_without_a_url_the_environment_counts_and_then_localhost(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MQTT_AGENT_BROKER", raising=False)
    assert str(BrokerURL.parse(None)) == "mqtt://localhost:1883"
    monkeypatch.setenv("MQTT_AGENT_BROKER", "mqtts://example:1")
    assert str(BrokerURL.parse(None)) == "mqtts://example:1"


@pytest.mark.parametrize(
    "several",
    ["mqtt://a,mqtts://b:1", " mqtt://a , mqtts://b:1 ", ["mqtt://a", "mqtts://b:1"], ("mqtt://a,mqtts://b:1",)],
)
def test_several_urls_are_read_from_one_text_or_from_a_sequence(several: str | list[str]) -> None:
    assert [str(url) for url in BrokerURL.parse_all(several)] == ["mqtt://a:1883", "mqtts://b:1"]
    assert BrokerSettings(several) == BrokerSettings("mqtt://a,mqtts://b:1") != BrokerSettings("mqtts://b:1,mqtt://a")


def test_the_environment_may_name_several_urls(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MQTT_AGENT_BROKER", "mqtt://a,mqtt://b")
    assert [url.host for url in BrokerURL.parse_all(None)] == ["a", "b"]
    with pytest.raises(ValueError, match="only one can be used here"):
        BrokerURL.parse(None)


def test_a_comma_in_a_password_does_not_begin_another_url() -> None:
    [url] = BrokerURL.parse_all("mqtt://user:a,b@h")
    assert url.password == "a,b"


def test_a_list_without_urls_or_schemes_is_refused() -> None:
    with pytest.raises(ValueError, match="list of broker URLs is empty"):
        BrokerURL.parse_all([])
    with pytest.raises(ValueError, match="give each URL of a list its scheme"):
        BrokerURL.parse_all("mqtt://a,b")


def test_user_and_password_are_decoded_and_never_shown() -> None:
    url = BrokerURL.parse("mqtt://us%40er:se%3Acret@h:1")
    assert (url.username, url.password) == ("us@er", "se:cret")
    assert "cret" not in str(url) + repr(url)
    assert "us@er" not in str(url) + repr(url)


@given(st.text(max_size=40))
def test_any_text_is_a_url_or_a_value_error(text: str) -> None:
    try:
        url = BrokerURL.parse(text or "x")
    except ValueError as error:
        assert "URL" in str(error)
    else:
        assert url.host


@pytest.mark.parametrize("text", ["http://user:hunter2@h", "mqtt://user:hunter2@", "mqtt://user:hunter2@h:99999"])
def test_a_bad_url_is_refused_without_repeating_its_password(text: str) -> None:
    with pytest.raises(ValueError, match="broker URL") as caught:
        BrokerURL.parse(text)
    assert "hunter2" not in str(caught.value)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("localhost:1883", "has no scheme: use mqtt://.*; did you mean mqtt://localhost:1883"),
        ("broker.example", "has no scheme: .*; did you mean mqtt://broker.example"),
        ("10.0.0.1:8883", "has no scheme: .*; did you mean mqtts://10.0.0.1:8883"),
        ("user:hunter2@h:1883", "has no scheme: .*; did you mean mqtt://USER:PASSWORD@h:1883"),
        ("user:12/hunter2@h", "has no scheme: .*; did you mean mqtt://localhost:1883"),
        ("http://h:1883", "the scheme http:// is not .*; did you mean mqtt://h:1883"),
        ("http://h:8080", "the scheme http:// is not .*; did you mean ws://h:8080"),
        ("https://h", "the scheme https:// is not .*; did you mean wss://h"),
        ("tcp://[::1]:1883", r"the scheme tcp:// is not .*; did you mean mqtt://\[::1\]:1883"),
        ("mqtts://", "names no host after mqtts://: .*; did you mean mqtt://localhost:1883"),
    ],
)
def test_the_refusal_of_a_url_says_what_is_wrong_and_suggests_a_url(text: str, says: str) -> None:
    with pytest.raises(ValueError, match=says + r"\?$") as caught:
        BrokerURL.parse(text)
    assert "hunter2" not in str(caught.value)


def test_secrets_are_not_in_the_repr_of_credentials() -> None:
    assert "hunter2" not in repr(Password("user", "hunter2")) + repr(Token("hunter2"))
