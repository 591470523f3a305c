"""An engine of a job whose servers the run itself starts: `engine: {kind: lmdeploy, mode: server, model: ...}`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, ValidationError, field_validator, model_validator

from s1batch.config import placement
from s1batch.engine.http.spec import HttpEngineSpec
from s1batch.engine.rules import RULES, Rules
from s1batch.engine.serving.backends import (
    SERIES_ARCHITECTURES,
    ChosenBackend,
    architecture_of,
    choose_backend,
    read_config,
)
from s1batch.engine.serving.spec import FlagValue, Server, ServerSettings, ServingSpec, named_flags, said
from s1batch.records import ModelIdentity

PORTS = ("port", "ray_port", "dist_port")
"""Fields of ports; those that are left out are found where they are used."""

STAGING_S = 24 * 3600.0
"""What a request may have to wait for while servers that died copy their checkpoint again."""

_UNNAMED: frozenset[Server] = frozenset({"transformers"})
"""Servers that call a model by what they were started with."""

_ONE_NODE: frozenset[Server] = frozenset({"llama_cpp", "transformers"})
"""Servers that do not spread over nodes."""


class ServedEngineSpec(ServerSettings):
    """Servers that live as long as the run, on this host or on nodes of its allocation, and how they are asked.

    What answers depend on is compared when a run goes on: model, name, revision, number formats, backend, parsers and
    `flags`. What only says where and how fast (GPUs, ports, patience, `tuning`) may change.

    Attributes:
        kind: Which program serves.
        mode: The run starts it as a server.
        model: Folder of the checkpoint (relative to the job file), or its name on the Hugging Face hub.
        model_revision: Revision of the weights, part of the identity of every answer.
        dtype: Number format of the weights, part of the identity; tell the server in `flags`.
        quantisation: Quantisation of the weights, part of the identity; tell the server in `flags`.
        tuning: Further options like `flags`, but such that cannot change an answer: `{max-batch-size: 128}`.
        nodes: On how many nodes of the Slurm allocation they run; `auto`: on all of them; 1: on this host.
        port: Of the (first) server of each node; None takes free ones.
        ray_port: Where Ray's head listens; None takes a free one.
        dist_port: Where the ranks find one another; None takes a free one.
        timeout_s: Deadline of one attempt.
        total_timeout_s: Deadline of one request, over all attempts; loading the model again is not counted.
        max_attempts: How often one request is asked before it counts as failed.
        max_in_flight: Requests that are under way at once, over all servers.
        tokenizer: Folder with the model's tokenizer.json and chat_template.jinja, as in `engine: {kind: http}`.
        media: How series travel: within the request (`data_url`), or as files in /dev/shm (`shared_memory`, LMDeploy).
        max_restarts: Restarts in a row, without a thousand answers or an hour of service in between, before the end.
    """

    kind: Server
    mode: Literal["server"] = placement("server")
    model_revision: str = ""
    dtype: str = ""
    quantisation: str = ""
    tuning: dict[str, FlagValue] = placement(default_factory=dict)
    nodes: Annotated[int, Field(ge=1)] | Literal["auto"] = placement(1)
    port: int | None = placement(None, ge=1, le=65535)
    ray_port: int | None = placement(None, ge=1, le=65535)
    dist_port: int | None = placement(None, ge=1, le=65535)
    timeout_s: float = placement(600.0, gt=0)
    total_timeout_s: float = placement(3600.0, gt=0)
    max_attempts: int = placement(5, ge=1)
    max_in_flight: int = placement(256, ge=1)
    tokenizer: str | None = placement(None, min_length=1)
    media: Literal["data_url", "shared_memory"] = placement("data_url")
    max_restarts: int = placement(5, ge=0)

    @field_validator("tuning")
    @classmethod
    def _tuning_has_names(cls, value: dict[str, FlagValue]) -> dict[str, FlagValue]:
        return named_flags(value)

    @model_validator(mode="after")
    def _the_servers_can_be_described(self) -> ServedEngineSpec:
        if twice := sorted(self.flags.keys() & self.tuning.keys()):
            raise ValueError(f"{', '.join(twice)}: stands in flags and in tuning; remove one of them")
        if self.media == "shared_memory" and self.kind != "lmdeploy":
            raise ValueError("media: shared_memory is for LMDeploy servers, which encode series; use data_url")
        if self.nodes != 1:
            if self.kind in _ONE_NODE:
                raise ValueError(f"nodes: {self.kind} serves from one node; leave nodes out")
            if self.media == "shared_memory":
                raise ValueError("media: shared_memory reaches servers on the run's own host only; leave nodes out")
        try:
            self.serving(("localhost",))
        except ValidationError as error:
            raise ValueError("; ".join(said(error))) from error
        return self

    @property
    def identity(self) -> ModelIdentity:
        """The weights that answer."""
        return ModelIdentity(
            name=self.served_name, revision=self.model_revision, dtype=self.dtype, quantisation=self.quantisation
        )

    @property
    def gpus(self) -> int:
        """GPUs that serve, as far as the block says."""
        return self.tp * self.dp if self.kind == "vllm" else max(self.tp, self.dp, self.ep)

    @property
    def free_ports(self) -> tuple[str, ...]:
        """The ports that nobody has named."""
        return tuple(field for field in PORTS if getattr(self, field) is None)

    def serving(self, hosts: Sequence[str], base_dir: Path | None = None) -> ServingSpec:
        """Return the description of the servers, as `engine up` reads it.

        Args:
            hosts: Names or addresses of the nodes, in the order of their ranks.
            base_dir: The job file's folder, which a relative path of a checkpoint starts from.
        """
        settings: dict[str, Any] = {field: getattr(self, field) for field in ServerSettings.model_fields}
        settings |= {field: getattr(self, field) for field in PORTS if field not in self.free_ports}
        settings["flags"] = {**self.flags, **self.tuning}
        settings["model"] = located(self.model, base_dir)
        # However the path of the checkpoint is written.
        settings["name"] = None if self.kind in _UNNAMED else self.served_name
        return ServingSpec(server=self.kind, nodes=tuple(hosts), **settings)

    def client(self, urls: tuple[str, ...], base_dir: Path | None = None) -> HttpEngineSpec:
        """Return the block of an engine that asks the servers once they serve.

        Args:
            urls: Where they do.
            base_dir: The job file's folder.
        """
        loading_s = self.ready_timeout_s + self.stop_grace_s + (0.0 if self.stage is None else STAGING_S)
        return HttpEngineSpec(
            urls=urls,
            model=located(self.model, base_dir) if self.kind in _UNNAMED else self.served_name,
            model_revision=self.model_revision,
            dtype=self.dtype,
            quantisation=self.quantisation,
            dialect=self.kind,
            single_prefill=self.single_prefill,
            context_tokens=self.context_tokens(base_dir),
            timeout_s=self.timeout_s,
            total_timeout_s=self.total_timeout_s + loading_s,
            max_attempts=self.max_attempts,
            max_in_flight=self.max_in_flight,
            tokenizer=self.tokenizer,
            media=self.media,
            # Whoever watches the servers gives them up, not their clients.
            unavailable_after_s=self.unhealthy_after_s + (self.max_restarts + 1) * loading_s,
        )

    def chosen_backend(self, base_dir: Path) -> ChosenBackend | None:
        """Return LMDeploy's engine for the model; None when the model cannot be looked at from here.

        Raises:
            UsageError: TurboMind was asked for and does not serve the model.
        """
        serving = self.serving(("localhost",), base_dir)
        known = self.kind != "lmdeploy" or self.backend == "pytorch" or self.architecture is not None
        return choose_backend(serving) if known or read_config(serving.model) is not None else None

    def rules(self, base_dir: Path) -> Rules:
        """Return what the servers take; nothing is started or asked.

        Raises:
            UsageError: TurboMind was asked for and does not serve the model.
        """
        rules = RULES["lmdeploy_single_prefill" if self.single_prefill else self.kind]
        rules = replace(rules, context_tokens=self.context_tokens(base_dir))
        if self.kind == "transformers":
            config = self._config(base_dir)
            if architecture_of(config).endswith("ForCausalLM") and "vision_config" not in config:
                return replace(rules, modalities=rules.modalities - {"image"})  # it would drop them without a word
        if self.kind != "lmdeploy":
            return rules
        backend = self.chosen_backend(base_dir)
        architecture = self.architecture or architecture_of(self._config(base_dir))
        name = "pytorch" if backend is None or backend.name is None else backend.name
        if name == "turbomind" or (architecture and architecture not in SERIES_ARCHITECTURES):
            return replace(rules, name=f"lmdeploy ({name})", modalities=rules.modalities - {"series"})
        return rules

    def context_tokens(self, base_dir: Path | None) -> int | None:
        """Return the most tokens of prompt and answer together; None when only the server knows."""
        if self.kind == "llama_cpp":
            return None  # its slots share `session_len`
        if self.session_len is not None:
            return self.session_len
        config = self._config(base_dir)
        text = config.get("text_config")
        found = (text if isinstance(text, Mapping) else config).get("max_position_embeddings")
        return found if isinstance(found, int) and found > 0 else None

    def _config(self, base_dir: Path | None) -> dict[str, Any]:
        return {} if self.kind == "llama_cpp" else read_config(located(self.model, base_dir)) or {}


def located(model: str, base_dir: Path | None) -> str:
    """Return the absolute path of a checkpoint that lies beside the job file; other names as they are."""
    if base_dir is not None and (base_dir / model).exists():
        return str(base_dir / model)
    return model
