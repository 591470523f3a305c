"""The description of servers that `s1batch engine up` reads: one YAML mapping, validated once."""

from __future__ import annotations

import difflib
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import yaml
from pydantic import Field, ValidationError, field_validator, model_validator

from s1batch.config import Config, placement
from s1batch.errors import UsageError

Server = Literal["lmdeploy", "vllm", "sglang", "llama_cpp", "transformers"]
Backend = Literal["turbomind", "pytorch"]
FlagValue = bool | int | float | str | list[int | float | str] | dict[str, Any]

_HOST = re.compile(r"[0-9A-Za-z]([0-9A-Za-z._-]*[0-9A-Za-z])?|[0-9A-Fa-f:]*:[0-9A-Fa-f:.]*")
_FLAG = re.compile(r"[A-Za-z][A-Za-z0-9_.-]*")
_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")


class ServerSettings(Config):
    """What is said of a server wherever it is described: in a file for `engine up`, or in a job.

    Attributes:
        model: Folder of the checkpoint as the nodes see it, or its name on the Hugging Face hub; a GGUF file for
            llama.cpp.
        name: What the servers call the model; None leaves it at `model`.
        backend: LMDeploy's engine; `auto` follows the architecture.
        architecture: The model's architecture; None reads it from the config.json.
        tp: GPUs over which each layer is split, over all nodes.
        dp: Replicas of the attention layers, over all nodes.
        ep: GPUs over which the experts are spread, over all nodes.
        session_len: Most tokens of prompt and answer together.
        smallest_prompt_tokens: A number of tokens that no prompt goes below. The servers are then started so that
            they never prefill two prompts together, and series of different shapes may be in flight together.
        longest_prompt_tokens: A number of tokens that no prompt goes above. Below twice the smallest one it saves
            prompts from being prefilled in pieces.
        reasoning_parser: What splits the reasoning from the answer, by the server's name for it.
        tool_call_parser: What reads tool calls, by the server's name for it.
        trust_remote_code: Run the Python code that comes with the checkpoint; Intern-S1-Pro needs it.
        offline: Look nothing up on the Hugging Face hub.
        flags: Further options of the server under their own names: `true` for a bare option, a list for several
            values, a mapping for JSON.
        env: Further environment variables of the servers.
        prefix: Words in front of every command, such as `[apptainer, exec, --nv, image.sif]`.
        stage: A folder on each node's own disk, `$NAME` in it taken from the node's environment. The checkpoint is
            copied there, and proved, before the servers start; they load it from there under its own name.
        ready_timeout_s: Deadline for loading the model.
        stop_grace_s: Time between SIGTERM and SIGKILL.
        check_every_s: How often the health of running servers is asked.
        unhealthy_after_s: A server that gives no sign of health for so long is given up.
    """

    model: str = Field(min_length=1)
    name: str | None = Field(None, min_length=1)
    backend: Literal["auto"] | Backend = "auto"
    architecture: str | None = placement(None)
    tp: int = placement(1, ge=1)
    dp: int = placement(1, ge=1)
    ep: int = placement(1, ge=1)
    session_len: int | None = placement(None, ge=1)
    smallest_prompt_tokens: int | None = placement(None, ge=1)
    longest_prompt_tokens: int | None = placement(None, ge=1)
    reasoning_parser: str | None = None
    tool_call_parser: str | None = None
    trust_remote_code: bool = placement(False)
    offline: bool = placement(True)
    flags: dict[str, FlagValue] = Field(default_factory=dict)
    env: dict[str, str] = placement(default_factory=dict)
    prefix: tuple[str, ...] = placement(())
    stage: str | None = placement(None, min_length=1)
    ready_timeout_s: float = placement(3600.0, gt=0)
    stop_grace_s: float = placement(30.0, ge=0)
    check_every_s: float = placement(15.0, gt=0)
    unhealthy_after_s: float = placement(300.0, gt=0)

    @field_validator("prefix", mode="before")
    @classmethod
    def _one_word_is_a_list(cls, value: object) -> object:
        return (value,) if isinstance(value, str) else value

    @field_validator("flags")
    @classmethod
    def _flags_have_names(cls, value: dict[str, FlagValue]) -> dict[str, FlagValue]:
        return named_flags(value)

    @field_validator("env", mode="before")
    @classmethod
    def _variables_are_text(cls, value: object) -> object:
        return as_variables(value)

    @property
    def served_name(self) -> str:
        """What the servers call the model."""
        return self.name or self.model

    @property
    def single_prefill(self) -> bool:
        """Whether the servers never prefill two prompts together."""
        return self.smallest_prompt_tokens is not None


class ServingSpec(ServerSettings):
    """One model, served over one or more nodes by one kind of server: the file that `engine up` reads.

    Attributes:
        server: Which program serves.
        nodes: Hosts, in the order of their ranks; empty means this host. They must reach one another under these names.
        port: Of the server; with data parallelism of the first one on each node, the others follow.
        ray_port: Where Ray's head listens.
        dist_port: Where the ranks find one another.
        endpoints: Folder in which the nodes register, on a file system that all of them see.
        logs: Folder for the servers' output.
        digests: Folder in which nodes that stage compare what they have read, on a file system that all of them see.
    """

    server: Server = "lmdeploy"
    nodes: tuple[str, ...] = ()
    port: int = Field(23333, ge=1, le=65535)
    ray_port: int = Field(6379, ge=1, le=65535)
    dist_port: int = Field(29555, ge=1, le=65535)
    endpoints: str = "endpoints"
    logs: str = "logs"
    digests: str = "digests"

    @field_validator("nodes", mode="before")
    @classmethod
    def _one_node_is_a_list(cls, value: object) -> object:
        return (value,) if isinstance(value, str) else value

    @field_validator("nodes")
    @classmethod
    def _nodes_are_hosts(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        for node in value:
            if not _HOST.fullmatch(node):
                raise ValueError(f"{node!r} is no name or address of a host")
        if len(set(value)) < len(value):
            raise ValueError("the same node stands there twice")
        return value

    @model_validator(mode="after")
    def _fields_fit_together(self) -> ServingSpec:
        if self.server != "lmdeploy":
            for field in ("backend", "architecture", "smallest_prompt_tokens", "longest_prompt_tokens"):
                if getattr(self, field) != type(self).model_fields[field].default:
                    raise ValueError(f"{field} is a setting of LMDeploy; leave it out with server: {self.server}")
        if self.server == "transformers" and self.stage is not None:
            raise ValueError("stage: transformers serve calls a model by its path; leave stage out")
        if self.longest_prompt_tokens is not None and self.longest_prompt_tokens < (
            self.smallest_prompt_tokens or 1 << 62
        ):
            raise ValueError("longest_prompt_tokens needs smallest_prompt_tokens, and is not below it")
        if self.smallest_prompt_tokens is not None:
            if any(plain_flag(name) == "enable-prefix-caching" and value for name, value in self.flags.items()):
                raise ValueError("smallest_prompt_tokens needs prefix caching off: remove enable-prefix-caching")
            if self.backend == "turbomind":
                raise ValueError("smallest_prompt_tokens is a setting for LMDeploy's PyTorch engine; leave it out")
        return self

    @property
    def prefill_budget_tokens(self) -> int | None:
        """LMDeploy's `--max-prefill-token-num` with which no two prompts are prefilled together; None leaves it."""
        if self.smallest_prompt_tokens is None:
            return None
        return prefill_budget_tokens(self.smallest_prompt_tokens, self.longest_prompt_tokens)


def prefill_budget_tokens(smallest: int, longest: int | None) -> int:
    """Return LMDeploy's `max_prefill_token_num` with which no two prompts are prefilled together.

    A second prompt joins a prefill while the sum stays within this budget (LMDeploy 0.18.0,
    `pytorch/paging/prefill_scheduler.py`). Two whole prompts exceed twice the smallest one less one. But of a prompt
    that is longer than the budget only the first piece counts, and that piece ends where a series begins, so it may be
    of any size: unless no prompt is that long, the smallest prompt must fill the budget alone.

    Args:
        smallest: Tokens that no prompt goes below.
        longest: Tokens that no prompt goes above; None when that is not known.
    """
    return 2 * smallest - 1 if longest is not None and longest < 2 * smallest else smallest


def as_variables(value: object) -> object:
    """Return environment variables with their values as text; what is no mapping is left for pydantic to refuse.

    Raises:
        ValueError: A name is none, or a value is neither text nor a number.
    """
    if not isinstance(value, Mapping):
        return value
    for name, text in value.items():
        if not isinstance(name, str) or not _VARIABLE.fullmatch(name):
            raise ValueError(f"{name!r} is no name of an environment variable")
        if isinstance(text, bool) or not isinstance(text, str | int | float):
            raise ValueError(f"{name} must be a text or a number")
    return {name: str(text) for name, text in value.items()}


def named_flags(flags: dict[str, FlagValue]) -> dict[str, FlagValue]:
    """Return options of a server if their names are such, and none of them holds a key.

    Raises:
        ValueError: A name is none, or the option is a secret.
    """
    for name in flags:
        if not _FLAG.fullmatch(name):
            raise ValueError(f"{name!r} is no name of an option; write it without the dashes in front")
        if plain_flag(name) in ("api-key", "api-keys"):
            raise ValueError(f"{name}: a key would stand in this file and in the list of processes; leave it out")
    return flags


def plain_flag(name: str) -> str:
    """Return the name of an option with dashes, as LMDeploy and vLLM read it."""
    return name.replace("_", "-")


def load_spec(path: Path, overrides: Mapping[str, object] | None = None) -> ServingSpec:
    """Read a description.

    Args:
        path: The YAML file.
        overrides: Fields that replace those of the file.

    Raises:
        UsageError: The file is missing, not YAML, or wrong; names each wrong field.
    """
    try:
        loaded = yaml.safe_load(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise UsageError(f"{path}: cannot read the description of the servers: {error.strerror}") from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise UsageError(f"{path}: not valid YAML: {' '.join(str(error).split())}") from error
    if not isinstance(loaded, dict):
        raise UsageError(f"{path}: a mapping with the keys {', '.join(ServingSpec.model_fields)}")
    try:
        return ServingSpec.model_validate({**loaded, **(overrides or {})})
    except ValidationError as error:
        raise UsageError(f"{path}: {'; '.join(said(error))}") from error


def said(error: ValidationError) -> list[str]:
    """Return what is wrong with a description, one line for each field."""
    lines: dict[str, str] = {}
    for item in error.errors(include_url=False):
        # A value that fits none of several types gives an error for each: one is enough.
        field = (
            ".".join(str(part) for part in item["loc"][:2]) if item["loc"][:1] == ("flags",) else _field(item["loc"])
        )
        if item["type"] == "extra_forbidden":
            close = difflib.get_close_matches(field, ServingSpec.model_fields, n=1)
            hint = f"; did you mean {close[0]}?" if close else ""
            text = f"unknown field{hint} (valid: {', '.join(ServingSpec.model_fields)})"
        elif item["type"] == "literal_error":
            text = f"{item['input']!r} is not valid (valid: {item['ctx']['expected']})"
        else:
            text = item["msg"].removeprefix("Value error, ")
        lines.setdefault(field, f"{field}: {text}" if field else text)
    return list(lines.values())


def _field(loc: tuple[int | str, ...]) -> str:
    return ".".join(str(part) for part in loc if not str(part).startswith("literal["))
