"""The block of the job file."""

from __future__ import annotations

import pytest
from pydantic import ValidationError

from s1batch.config import answer_fields
from s1batch.engine.http.spec import HttpEngineSpec, normalise_url, read_api_key
from s1batch.errors import UsageError


@pytest.mark.parametrize(
    ("url", "base"),
    [
        ("http://node0:23333", "http://node0:23333"),
        ("http://node0:23333/v1", "http://node0:23333"),
        ("http://NODE0:23333/v1/", "http://node0:23333"),
        ("https://api.example.org/openai/v1/chat/completions", "https://api.example.org/openai"),
        (" http://[::1]:8000/ ", "http://[::1]:8000"),
    ],
)
def test_a_url_is_reduced_to_its_base(url: str, base: str) -> None:
    assert normalise_url(url) == base
    assert HttpEngineSpec(urls=(url,)).urls == (base,)


@pytest.mark.parametrize(
    "url",
    [
        "node0:23333",
        "ftp://node0",
        "http://",
        "",
        "http://h:99999",
        "http://h?key=x",
        "http://h/#x",
        "file:///etc/passwd",
    ],
)
def test_what_is_no_endpoint_is_refused(url: str) -> None:
    with pytest.raises(ValidationError):
        HttpEngineSpec(urls=(url,))


def test_a_password_in_a_url_is_refused_without_being_repeated() -> None:
    with pytest.raises(ValidationError) as error:
        HttpEngineSpec(urls=("http://me:hunter2@node0:1/v1",))
    assert "hunter2" not in str(error.value)
    assert "api_key_env" in str(error.value)


def test_one_url_may_stand_without_a_list_and_none_may_stand_twice() -> None:
    assert HttpEngineSpec.model_validate({"urls": "http://node0:1/v1"}).urls == ("http://node0:1",)
    with pytest.raises(ValidationError, match="twice"):
        HttpEngineSpec(urls=("http://node0:1/v1", "http://node0:1"))
    with pytest.raises(ValidationError):
        HttpEngineSpec(urls=())


def test_endpoints_are_named_in_exactly_one_place() -> None:
    assert HttpEngineSpec(endpoints="endpoints").urls == ()
    with pytest.raises(ValidationError, match="either in urls, or in endpoints"):
        HttpEngineSpec()
    with pytest.raises(ValidationError, match="either in urls, or in endpoints"):
        HttpEngineSpec(urls=("http://a",), endpoints="endpoints")


def test_only_what_can_change_an_answer_is_an_answer_field() -> None:
    assert set(answer_fields(HttpEngineSpec(urls=("http://a",)))) == {
        "kind",
        "model",
        "model_revision",
        "dtype",
        "quantisation",
        "dialect",
    }


def test_single_prefill_belongs_to_lmdeploy() -> None:
    assert HttpEngineSpec(urls=("http://a",), single_prefill=True, dialect="lmdeploy").single_prefill
    with pytest.raises(ValidationError, match="LMDeploy"):
        HttpEngineSpec(urls=("http://a",), single_prefill=True, dialect="vllm")


def test_the_key_comes_from_the_named_variable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("S1_KEY", " abc \n")
    assert read_api_key("S1_KEY") == "abc"
    assert read_api_key(None) is None
    monkeypatch.delenv("S1_KEY")
    with pytest.raises(UsageError, match="S1_KEY"):
        read_api_key("S1_KEY")
    monkeypatch.setenv("S1_KEY", "ab\ncd")
    with pytest.raises(UsageError) as error:
        read_api_key("S1_KEY")
    assert "cd" not in str(error.value)


def test_a_key_in_place_of_its_variables_name_is_refused() -> None:
    with pytest.raises(ValidationError) as error:
        HttpEngineSpec(urls=("http://a",), api_key_env="sk-12345")
    assert "sk-12345" not in str(error.value)
