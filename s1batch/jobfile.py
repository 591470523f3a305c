"""The job file: one YAML mapping, validated once, with messages that name the field, the value and the valid ones."""

from __future__ import annotations

import difflib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, get_args, get_origin

import yaml
from pydantic import BaseModel, Discriminator, Field, Tag, ValidationError, model_validator
from pydantic_core import ErrorDetails

from s1batch.blocks import AnySingleSource, AnySource, AnyTask, SourceSpec, TaskSpec, kinds
from s1batch.config import Config, placement
from s1batch.engine.http.spec import HttpEngineSpec
from s1batch.engine.lmdeploy.spec import LmdeployEngineSpec
from s1batch.engine.reference.spec import ReferenceEngineSpec
from s1batch.engine.replay import ReplayEngineSpec
from s1batch.engine.serving.engine_spec import ServedEngineSpec
from s1batch.engine.serving.spec import Server
from s1batch.errors import JobFileError, UsageError
from s1batch.long_series import CoarseToFineSpec, LongPolicy, LongSeries
from s1batch.records import Outcome
from s1batch.windows import WindowSpec


def _mode(block: Any) -> str:
    """Return where the servers of a block run; LMDeploy runs in a process of the run unless it is told otherwise."""
    read = block.get if isinstance(block, Mapping) else lambda name, default=None: getattr(block, name, default)
    return str(read("mode") or "in_process") if read("kind") == "lmdeploy" else "server"


_StartedSpec = Annotated[
    Annotated[LmdeployEngineSpec, Tag("in_process")] | Annotated[ServedEngineSpec, Tag("server")], Discriminator(_mode)
]
EngineSpec = Annotated[
    ReferenceEngineSpec | HttpEngineSpec | ReplayEngineSpec | _StartedSpec, Field(discriminator="kind")
]


class RunBlock(Config):
    """How a run is carried out; nothing here can change an answer."""

    scheduler: str = placement(
        "auto", description="auto, inline, local, slurm, allocation, or the address of a Dask scheduler"
    )
    workers: int | None = placement(None, ge=1, description="worker processes; most jobs of `slurm`")
    parts_in_flight: int | None = placement(
        None,
        ge=1,
        le=1024,
        description="most parts that each worker has open at once (default: enough for the requests in flight, at "
        "least 32); 4 of them are read at a time",
    )
    part_chunks: int | None = placement(
        None, ge=1, description="chunks in a part (default: 128, growing with the plan)"
    )
    prefetch: int = placement(32, ge=1, description="records that are read ahead in each part")
    memory_mb: int = placement(
        64, ge=1, description="memory of the requests of each worker that are ready or asked; more for long series"
    )
    drain_s: float = placement(30.0, ge=0, description="how long an interrupted run waits for answers on their way")
    storage_patience_s: float = placement(
        300.0,
        ge=0,
        description="how long a run waits for a results folder that is full, read-only, out of reach or silent",
    )
    budget_tokens: int | None = placement(
        None, ge=1, description="tokens of prompts and answers, over all runs of the job, at which a run stops"
    )
    budget_hours: float | None = placement(
        None, gt=0, description="hours of work, over all runs of the job (or of one shard), at which a run stops"
    )
    gpus: int | None = placement(
        None, ge=1, description="GPUs that answer, for GPU-hours; known when the run starts the servers itself"
    )
    accept: tuple[Outcome, ...] = placement((), description="outcomes besides ok that leave the exit code at 0")


class JobFile(Config):
    """A job: what to read, what to ask, who answers, and where the rows go."""

    name: str = placement("job", description="a name for people")
    source: SourceSpec
    window: WindowSpec | None = Field(None, description="how series are cut; 60 s without overlap when left out")
    long_series: LongPolicy = Field(
        "split",
        description="windows longer than the engine takes: cut into shorter ones (split), sent at a lower rate "
        "(decimate), scanned at a lower rate to find which of their parts are asked at the full one (coarse_to_fine), "
        "or refused",
    )
    coarse_to_fine: CoarseToFineSpec | None = Field(
        None, description="how `long_series: coarse_to_fine` works; defaults when left out"
    )
    job: TaskSpec
    engine: EngineSpec
    output: str | None = placement(None, description="results folder, relative to the job file")
    run: RunBlock = placement(RunBlock(), description="how the run is carried out")

    @model_validator(mode="after")
    def _check(self) -> JobFile:
        if not self.source.cuts_series and self.window is not None:
            raise ValueError(f"window has no meaning for `source: {{kind: {self.source.kind}}}`; leave it out")
        if self.job.needs_waveforms and not self.source.waveforms:
            raise ValueError(f"job.kind {self.job.kind} needs waveforms: use `source: {{kind: seismic}}`")
        if self.coarse_to_fine is not None and self.long_series != "coarse_to_fine":
            raise ValueError(f"coarse_to_fine has no meaning with `long_series: {self.long_series}`; leave it out")
        if self.long_series == "coarse_to_fine" and not self.job.names_places:
            raise ValueError(
                "`long_series: coarse_to_fine` needs answers that name places, as those of seismic-pick and "
                f"sensor-anomaly do; with job.kind {self.job.kind} use split or decimate"
            )
        return self

    @property
    def windows(self) -> WindowSpec:
        """The window specification, with its default."""
        return self.window or WindowSpec()

    @property
    def long(self) -> LongSeries:
        """What becomes of windows that are longer than the engine takes."""
        return LongSeries(policy=self.long_series, coarse_to_fine=self.coarse_to_fine or CoarseToFineSpec())


@dataclass(frozen=True, slots=True, kw_only=True)
class LoadedJob:
    """A job with where it came from.

    Attributes:
        spec: The validated job.
        as_written: The mapping before validation, after `--set`.
        base_dir: The folder that relative paths in the job are relative to.
        path: The job file; None for a mapping.
    """

    spec: JobFile
    as_written: Mapping[str, Any]
    base_dir: Path
    path: Path | None = None

    @property
    def output(self) -> Path:
        """The results folder that the job names: `output`, or `results/NAME` beside the job file."""
        return self.base_dir / (self.spec.output or f"results/{self.spec.name}")


JobLike = str | Path | Mapping[str, Any] | JobFile | LoadedJob


def load_job(job: JobLike, overrides: Sequence[str] = (), base_dir: Path | None = None) -> LoadedJob:
    """Load and validate a job.

    Args:
        job: Path of a YAML file, a mapping, or a job that is loaded already.
        overrides: `a.b=c` settings, c in YAML, applied before validation.
        base_dir: What relative paths are relative to; the job file's folder, else the current one.

    Raises:
        JobFileError: The file is missing, not YAML, or not a valid job; names each wrong field.
        UsageError: An override is malformed.
    """
    path: Path | None = None
    if isinstance(job, LoadedJob):
        if not overrides:
            return job
        written, path, base_dir = dict(job.as_written), job.path, base_dir or job.base_dir
    elif isinstance(job, JobFile):
        written = job.model_dump(mode="json", by_alias=True, exclude_unset=True)
    elif isinstance(job, Mapping):
        written = dict(job)
    else:
        path = Path(job)
        written = _read_yaml(path)
        base_dir = base_dir or path.resolve().parent
    for override in overrides:
        written = _override(written, override)
    where = str(path) if path else "the job"
    try:
        spec = JobFile.model_validate(written)
    except ValidationError as error:
        raise JobFileError(_explain(error, where)) from error
    return LoadedJob(spec=spec, as_written=written, base_dir=(base_dir or Path.cwd()).resolve(), path=path)


def job_schema() -> dict[str, Any]:
    """Return the JSON Schema of the job file."""
    return JobFile.model_json_schema()


def _read_yaml(path: Path) -> dict[str, Any]:
    try:
        loaded = _with_text_keys(yaml.safe_load(path.read_text(encoding="utf-8")))
    except OSError as error:
        raise JobFileError(f"{path}: cannot read the job file: {error.strerror}") from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise JobFileError(f"{path}: not valid YAML: {' '.join(str(error).split())}") from error
    if not isinstance(loaded, dict):
        raise JobFileError(f"{path}: a job file is a mapping with the keys {', '.join(JobFile.model_fields)}")
    return loaded


def _with_text_keys(value: Any) -> Any:
    """Return what YAML gave with the keys that it takes for booleans as they were written: `on` means `on`."""
    if isinstance(value, list):
        return [_with_text_keys(each) for each in value]
    if not isinstance(value, dict):
        return value
    return {"on" if key is True else key: _with_text_keys(each) for key, each in value.items()}


def _override(written: Mapping[str, Any], override: str) -> dict[str, Any]:
    name, equals, text = override.partition("=")
    keys = name.strip().split(".")
    if not equals or not all(keys):
        raise UsageError(f"--set {override}: write it as name.field=value, for example --set engine.kind=reference")
    try:
        value = _with_text_keys(yaml.safe_load(text))
    except yaml.YAMLError as error:
        raise UsageError(f"--set {override}: {text!r} is not valid YAML") from error
    changed = dict(written)
    level = changed
    for key in keys[:-1]:
        inner = level.get(key)
        if inner is not None and not isinstance(inner, Mapping):
            raise UsageError(f"--set {override}: {key} holds {inner!r}, which has no fields")
        level[key] = dict(inner or {})
        level = level[key]
    level[keys[-1]] = value
    return changed


# ---------------------------------------------------------------------------------------------- messages


def _explain(error: ValidationError, where: str) -> str:
    lines = [_line(item) for item in error.errors(include_url=False)]
    if len(lines) == 1:
        return f"{where}: {lines[0]}"
    return f"{where}: {len(lines)} things are wrong:\n" + "\n".join(f"  {line}" for line in lines)


def _line(item: ErrorDetails) -> str:
    model, trail = _locate(item["loc"])
    field = ".".join(trail) or "job"
    kind, context = item["type"], item.get("ctx", {})
    if kind == "extra_forbidden":
        valid = _names(model)
        close = difflib.get_close_matches(trail[-1], valid, n=1)
        hint = f"; did you mean {close[0]}?" if close else ""
        return f"{field}: unknown field{hint} (valid: {', '.join(valid)})"
    if kind == "missing":
        return f"{field}: missing"
    if kind in ("union_tag_invalid", "union_tag_not_found"):
        got = f"{context['tag']!r} is not valid" if "tag" in context else "missing"
        name = "mode" if "mode" in context["discriminator"] else "kind"
        tags = _TAGS.get(field, kinds(AnySingleSource) if field.startswith("source.sources.") else "")
        return f"{field}.{name}: {got} (valid: {context.get('expected_tags', tags)!s})"
    value = _short(item["input"])
    if kind == "literal_error":
        return f"{field}: {value} is not valid (valid: {context['expected']})"
    message = item["msg"].removeprefix("Value error, ")
    if isinstance(item["input"], (Mapping, BaseModel)):
        return f"{field}: {message}"
    return f"{field}: {value}: {message}"


_TAGS = {
    "source": kinds(AnySource),
    "job": kinds(AnyTask),
    "engine": ", ".join(map(repr, ("reference", "http", "replay", *get_args(Server)))),
}


def _locate(loc: tuple[int | str, ...]) -> tuple[type[BaseModel] | None, list[str]]:
    """Return the model that the last name belongs to, and the location without the tags of unions."""
    model: type[BaseModel] | None = JobFile
    trail: list[str] = []
    options: list[type[BaseModel]] = []
    owner = model
    is_mapping = False
    for item in loc:
        tagged = [option for option in options if item in _tags(option)]
        if tagged and not is_mapping:
            # A tag of its own may follow, which tells those of one kind apart.
            model, options = tagged[0], tagged
            continue
        owner = model
        trail.append(str(item))
        if is_mapping:
            # A name that the user gave; the tag of what it names follows.
            is_mapping = False
            continue
        is_mapping = model is not None and isinstance(item, str) and _is_mapping(model, item)
        options = []
        if model is not None and isinstance(item, str):
            options = _models(model, item)
            model = options[0] if len(options) == 1 else None
    return owner, trail


def _is_mapping(model: type[BaseModel], name: str) -> bool:
    """Return whether a field holds models by names that the user gives."""
    info = model.model_fields.get(name)
    return info is not None and get_origin(info.annotation) is dict and bool(_models(model, name))


def _models(model: type[BaseModel], name: str) -> list[type[BaseModel]]:
    for key, info in model.model_fields.items():
        if name in (key, info.alias):
            found: list[type[BaseModel]] = []
            stack: list[Any] = [info.annotation]
            while stack:
                item = stack.pop()
                if isinstance(item, type) and issubclass(item, BaseModel):
                    found.append(item)
                else:
                    stack.extend(getattr(item, "__args__", ()))
            return found
    return []


def _tags(model: type[BaseModel]) -> tuple[str, ...]:
    fields = [model.model_fields[name] for name in ("kind", "mode") if name in model.model_fields]
    return tuple(tag for field in fields for tag in get_args(field.annotation))


def _names(model: type[BaseModel] | None) -> list[str]:
    return [info.alias or name for name, info in model.model_fields.items()] if model else []


def _short(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 80 else text[:77] + "..."
