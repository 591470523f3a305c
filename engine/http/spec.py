"""The job file's block for an endpoint that speaks the OpenAI interface."""

from __future__ import annotations

import os
from typing import Literal
from urllib.parse import urlsplit

from pydantic import ConfigDict, field_validator, model_validator

from s1batch.config import Config, placement
from s1batch.errors import UsageError

Dialect = Literal["lmdeploy", "vllm", "sglang", "llama_cpp", "transformers", "openai"]
"""Which server it is: decides the admission rules and the fields beyond the OpenAI interface."""


class HttpEngineSpec(Config):
    """One model behind one or more endpoints.

    Attributes:
        urls: The endpoints; `/v1` at the end may be left out.
        endpoints: Instead of `urls`: the folder in which `s1batch engine up` registered them, relative to the job file.
            It is read when a run starts; `single_prefill` is then as registered.
        model: As the endpoints name it; `auto` takes the one model that they all serve.
        model_revision: Revision of the weights, part of the identity of every answer.
        dtype: Number format of the weights, part of the identity.
        quantisation: Quantisation of the weights, part of the identity.
        api_key_env: Name of the environment variable that holds the key; never the key.
        dialect: Which server it is; `auto` asks it.
        single_prefill: The LMDeploy server was started so that it never prefills two prompts together
            (`--max-prefill-token-num` not above the smallest prompt, no prefix caching; docs/servers.md says why):
            series of different shapes may then be in flight together.
        context_tokens: Most tokens of prompt and answer together; None takes what the endpoint says, if it does.
        tokenizer: Folder with the model's tokenizer.json and chat_template.jinja, relative to the job file: prompts are
            then counted exactly instead of estimated.
        timeout_s: Deadline of one attempt.
        total_timeout_s: Deadline of one request, over all attempts and the waiting between them.
        max_attempts: How often one request is asked before it counts as failed.
        max_in_flight: Requests that are under way at once, over all endpoints.
        connect_timeout_s: Deadline of making a connection.
        retry_base_s: The first wait before a retry is up to this long; it doubles every time.
        unavailable_after_s: The run ends when every endpoint has been dead for this long.
        verify_tls: Whether certificates are checked.
        media: How series travel: within the request (`data_url`), or as files in /dev/shm whose names are sent
            (`shared_memory`): for LMDeploy servers on this host that run as the same user and see the same /dev/shm.
    """

    # An error message must not repeat a URL that holds a password.
    model_config = ConfigDict(
        extra="forbid", frozen=True, defer_build=True, str_strip_whitespace=True, hide_input_in_errors=True
    )

    kind: Literal["http"] = "http"
    urls: tuple[str, ...] = placement(())
    endpoints: str | None = placement(None, min_length=1)
    model: str = "auto"
    model_revision: str = ""
    dtype: str = ""
    quantisation: str = ""
    api_key_env: str | None = placement(None, pattern=r"^[A-Za-z_][A-Za-z0-9_]*$")
    dialect: Literal["auto"] | Dialect = "auto"
    single_prefill: bool = placement(False)
    context_tokens: int | None = placement(None)
    tokenizer: str | None = placement(None, min_length=1)
    timeout_s: float = placement(600.0, gt=0)
    total_timeout_s: float = placement(3600.0, gt=0)
    max_attempts: int = placement(5, ge=1)
    max_in_flight: int = placement(256, ge=1)
    connect_timeout_s: float = placement(10.0, gt=0)
    retry_base_s: float = placement(0.5, gt=0)
    unavailable_after_s: float = placement(120.0, gt=0)
    verify_tls: bool = placement(True)
    media: Literal["data_url", "shared_memory"] = placement("data_url")

    @field_validator("urls", mode="before")
    @classmethod
    def _one_url_is_a_list(cls, value: object) -> object:
        return (value,) if isinstance(value, str) else value

    @field_validator("urls")
    @classmethod
    def _normalise_urls(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        urls = tuple(normalise_url(url) for url in value)
        if len(set(urls)) < len(urls):
            raise ValueError("the same URL stands there twice")
        return urls

    @field_validator("context_tokens")
    @classmethod
    def _context_is_positive(cls, value: int | None) -> int | None:
        if value is not None and value < 1:
            raise ValueError("must be positive")
        return value

    @model_validator(mode="after")
    def _endpoints_come_from_one_place(self) -> HttpEngineSpec:
        if bool(self.urls) == (self.endpoints is not None):
            raise ValueError("name the endpoints either in urls, or in endpoints: the folder that `engine up` fills")
        return self

    @model_validator(mode="after")
    def _files_are_lmdeploys(self) -> HttpEngineSpec:
        if self.media == "shared_memory" and self.dialect not in ("auto", "lmdeploy"):
            raise ValueError("media: shared_memory is for LMDeploy servers, which encode series; use data_url")
        return self

    @model_validator(mode="after")
    def _single_prefill_is_lmdeploys(self) -> HttpEngineSpec:
        if self.single_prefill and self.dialect not in ("auto", "lmdeploy"):
            raise ValueError("single_prefill is a setting of LMDeploy servers; leave it out")
        return self


def normalise_url(url: str) -> str:
    """Return the base of an endpoint, without `/v1`, a route or a slash at the end.

    Raises:
        ValueError: It is no http or https URL, or holds a password, a query or a fragment. The text does not repeat it.
    """
    parts = urlsplit(url.strip())
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise ValueError("an endpoint must be http://HOST:PORT or https://HOST")
    if parts.username is not None or parts.password is not None:
        raise ValueError("a URL must hold no user or password; put the key into a variable and name it in api_key_env")
    if parts.query or parts.fragment:
        raise ValueError("a URL must end with its path, without ? or #")
    if parts.port is not None and not 0 < parts.port < 65536:
        raise ValueError("the port must lie between 1 and 65535")
    path = parts.path.rstrip("/").removesuffix("/chat/completions").removesuffix("/v1").rstrip("/")
    return f"{parts.scheme}://{parts.netloc.lower()}{path}"


def read_api_key(name: str | None) -> str | None:
    """Return the key that the environment variable holds, or None when no variable is named.

    Raises:
        UsageError: The variable is missing, empty, or holds what no header can carry. The text names only the variable.
    """
    if name is None:
        return None
    key = os.environ.get(name, "").strip()
    if not key:
        raise UsageError(f"engine.api_key_env names the environment variable {name}, which is not set: export {name}=…")
    if not key.isascii() or not key.isprintable():
        raise UsageError(f"the environment variable {name} holds characters that no key has: set it again")
    return key
