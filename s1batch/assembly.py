"""From a job file to the three actors: the reader, the job and the engine.

The blocks of a job file build their own readers and jobs; which engine serves which `kind` is known here alone.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from s1batch import __version__
from s1batch.engine.base import Engine
from s1batch.engine.http.spec import HttpEngineSpec
from s1batch.engine.lmdeploy.spec import LmdeployEngineSpec, check_installed, open_lmdeploy
from s1batch.engine.reference.spec import ReferenceEngineSpec, model_rules
from s1batch.engine.replay import ReplayEngineSpec
from s1batch.engine.rules import RULES, Rules, estimate_text_tokens
from s1batch.engine.serving.engine_spec import ServedEngineSpec
from s1batch.errors import ConflictError, EngineUnavailable, UsageError
from s1batch.jobfile import LoadedJob
from s1batch.jobs.base import Job, Settings
from s1batch.long_series import LongPolicy
from s1batch.readers.base import Reader
from s1batch.readers.seismic.spec import SeismicSource
from s1batch.readers.spec import ReaderSetting
from s1batch.records import ModelIdentity, Sampling
from s1batch.windows import ExtentValue, WindowSpec

if TYPE_CHECKING:
    from s1batch.engine.http.client import HttpEngine
    from s1batch.engine.reference.chat import ChatFormat

REPLAY_IN_FLIGHT = 256
"""Requests that a replay engine gets at once."""


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineFacts:
    """What planning and provenance need of an engine: plain values, known before it is loaded where that is possible.

    Attributes:
        name: Kind and version.
        model: The weights.
        rules: What it takes.
        resolved: The engine's block with every `auto` replaced by what was found.
        told: One line for the user about what was found out (the backend or dialect that was chosen); may be empty.
    """

    name: str
    model: ModelIdentity
    rules: Rules
    resolved: ReferenceEngineSpec | HttpEngineSpec | ReplayEngineSpec | LmdeployEngineSpec | ServedEngineSpec
    told: str = ""


def make_reader(loaded: LoadedJob, rules: Rules) -> Reader:
    """Build the reader of a job, its windows fitted to what the engine takes."""
    spec = loaded.spec
    window = fitted_window(loaded, rules) if spec.source.cuts_series else spec.windows
    setting = ReaderSetting(
        base_dir=loaded.base_dir,
        window=window,
        long_series=spec.long,
        tokenizer=tokenizer_file(loaded),
        context_tokens=rules.context_tokens,
        answer_tokens=spec.job.sampling.max_tokens,
    )
    return spec.source.build(setting)


def tokenizer_file(loaded: LoadedJob) -> Path | None:
    """Return the `tokenizer.json` of the model that will answer; None where it is not at hand."""
    spec = loaded.spec.engine
    folder: Path | None = None
    if isinstance(spec, ReferenceEngineSpec):
        from s1batch.engine.reference.identity import model_folder

        folder = model_folder(spec.model, loaded.base_dir)
    elif isinstance(spec, LmdeployEngineSpec):
        folder = loaded.base_dir / Path(spec.model).expanduser()
    elif isinstance(spec, HttpEngineSpec | ServedEngineSpec) and spec.tokenizer is not None:
        folder = loaded.base_dir / Path(spec.tokenizer).expanduser()
    if folder is None:
        return None
    file = folder / "tokenizer.json"
    return file if file.is_file() else None


def fitted_window(loaded: LoadedJob, rules: Rules) -> WindowSpec:
    """Return a job's windows, fitted to what the engine takes of the series that the job sends.

    Raises:
        UsageError: As `fit_window`.
    """
    spec = loaded.spec
    if not spec.job.sends_series:
        rules = replace(rules, longest_series=None)
    return fit_window(spec.windows, spec.long_series, rules)


def fit_window(window: WindowSpec, policy: LongPolicy, rules: Rules) -> WindowSpec:
    """Resolve `length: max`, and say what the longest series is that is sent, where the policy needs to know.

    Raises:
        UsageError: `max` was asked of an engine without a longest series.
    """
    limits = [limit for limit in (window.longest_samples, rules.longest_series) if limit is not None]
    longest = min(limits, default=None)
    if policy != "refuse":
        window = window.model_copy(update={"longest_samples": longest})
    if window.length.unit == "max":
        if longest is None:
            raise UsageError(f"window.length: max: {rules.name} has no longest series; give a length such as 60s")
        window = window.model_copy(update={"length": ExtentValue(float(longest), "samples")})
    return window


def make_job(loaded: LoadedJob) -> Job:
    """Build the science task of a job."""
    return loaded.spec.job.build(loaded.base_dir)


def make_settings(loaded: LoadedJob, model: ModelIdentity) -> Settings:
    """Return what `Job.prepare` needs besides the record."""
    task = loaded.spec.job
    return Settings(model=model, sampling=make_sampling(loaded), seed=task.seed)


def make_sampling(loaded: LoadedJob) -> Sampling:
    """Return the resolved sampling of a job."""
    return loaded.spec.job.sampling.resolve()


def engine_facts(loaded: LoadedJob, *, offline: bool = False) -> EngineFacts:
    """Find out what planning needs of a job's engine, without loading a model.

    Args:
        loaded: The job.
        offline: Contact no endpoint.

    Raises:
        UsageError: The engine's block does not fit what is there, or the engine cannot do what the job asks of it.
        EngineUnavailable: No endpoint answers.
    """
    spec = loaded.spec.engine
    if isinstance(spec, ReferenceEngineSpec):
        facts = _reference_facts(spec, loaded)
    elif isinstance(spec, LmdeployEngineSpec):
        facts = _lmdeploy_facts(spec, loaded)
    elif isinstance(spec, ReplayEngineSpec):
        identity = _located(spec, loaded).identity()
        facts = EngineFacts(name=f"replay {__version__}", model=identity, rules=RULES["replay"], resolved=spec)
    elif isinstance(spec, ServedEngineSpec):
        facts = _served_facts(spec, loaded)
    else:
        facts = _offline_facts(spec, loaded) if offline else asyncio.run(_probed_facts(spec, loaded))
    if make_sampling(loaded).thinking_budget is not None and not facts.rules.thinking_budget:
        raise UsageError(f"job.sampling.thinking_budget: {facts.rules.no_thinking_budget()}")
    return facts


def check_engine(loaded: LoadedJob) -> None:
    """Make sure that what a job's engine needs is installed here.

    Raises:
        MissingExtra: It is not.
    """
    if isinstance(loaded.spec.engine, LmdeployEngineSpec):
        check_installed(loaded.spec.engine)


async def open_engine(loaded: LoadedJob, facts: EngineFacts) -> Engine:
    """Open a job's engine; that of servers which the run starts itself is `http`, with their URLs, by now.

    Raises:
        ConflictError: It serves another model than when the run was planned.
        EngineUnavailable: It cannot be reached.
    """
    spec = loaded.spec.engine
    engine: Engine
    if isinstance(spec, ReferenceEngineSpec):
        from s1batch.engine.reference.spec import open_reference

        engine = await asyncio.to_thread(open_reference, spec, loaded.base_dir)
    elif isinstance(spec, ReplayEngineSpec):
        engine = await asyncio.to_thread(_located(spec, loaded).open)
    elif isinstance(spec, LmdeployEngineSpec):
        engine = await open_lmdeploy(spec, loaded.base_dir)
    elif isinstance(spec, ServedEngineSpec):
        raise RuntimeError("servers are started, and the job told their URLs, before its engine is opened")
    elif isinstance(facts.resolved, ServedEngineSpec):
        from s1batch.engine.http.opening import open_http

        http = await open_http(spec, rules=facts.rules, identity=facts.model, patient=True)
        if (chat := _chat_format(spec, loaded)) is not None:
            http.count_by(chat.count_prompt)
        engine = http
    else:
        engine = await _open_http(spec, loaded)
    if engine.model != facts.model:
        await engine.aclose()
        raise ConflictError(f"the engine serves {engine.model}, but the run was planned for {facts.model}")
    return engine


def requests_of_session(loaded: LoadedJob, sessions: int) -> int:
    """Return how many requests each of some sessions has in flight: endpoints are shared, other engines its own."""
    shared = isinstance(loaded.spec.engine, HttpEngineSpec | ServedEngineSpec)
    return max(1, requests_in_flight(loaded) // (sessions if shared else 1))


def requests_in_flight(loaded: LoadedJob) -> int:
    """Return how many requests the engine gets at once."""
    spec = loaded.spec.engine
    if isinstance(spec, HttpEngineSpec | ServedEngineSpec):
        return spec.max_in_flight
    if isinstance(spec, LmdeployEngineSpec):
        return spec.in_flight
    # The next batch of the reference engine forms while one runs.
    return 2 * spec.max_batch if isinstance(spec, ReferenceEngineSpec) else REPLAY_IN_FLIGHT


def gpus(loaded: LoadedJob) -> int | None:
    """Return how many GPUs answer; None when the job does not say."""
    spec = loaded.spec.engine
    if isinstance(spec, LmdeployEngineSpec):
        return loaded.spec.run.gpus or spec.tp
    return loaded.spec.run.gpus or (spec.gpus if isinstance(spec, ServedEngineSpec) else None)


def text_counter(loaded: LoadedJob, facts: EngineFacts) -> Callable[[str], int]:
    """Return a function that counts the tokens of a text: exactly where the tokenizer is at hand, else estimated."""
    spec = loaded.spec.engine
    if isinstance(spec, ReferenceEngineSpec):
        from s1batch.engine.reference.chat import ChatFormat
        from s1batch.engine.reference.identity import model_folder

        return ChatFormat(model_folder(spec.model, loaded.base_dir)).count_tokens
    if isinstance(spec, LmdeployEngineSpec):
        from s1batch.engine.lmdeploy.resolution import resolve

        return resolve(spec, loaded.base_dir).count_tokens
    if isinstance(spec, HttpEngineSpec | ServedEngineSpec) and (chat := _chat_format(spec, loaded)) is not None:
        return chat.count_tokens
    return estimate_text_tokens


def _reference_facts(spec: ReferenceEngineSpec, loaded: LoadedJob) -> EngineFacts:
    from s1batch.engine.reference.config import ModelConfig
    from s1batch.engine.reference.identity import NANO, NANO_RATE_HZ, model_folder, read_identity

    source = loaded.spec.source
    told = f"engine: the embedded reference model {spec.model!r}, on this machine's CPU"
    if spec.model == NANO and isinstance(source, SeismicSource) and source.rate_hz != NANO_RATE_HZ:
        told += f"; it picks well at {NANO_RATE_HZ:g} Hz only: set source.rate_hz: {NANO_RATE_HZ:g}"
    folder = model_folder(spec.model, loaded.base_dir)
    return EngineFacts(
        name=f"reference {__version__}",
        model=read_identity(folder, spec.weights_seed, spec.dtype),
        rules=model_rules(ModelConfig.read(folder)),
        resolved=spec,
        told=told,
    )


def _served_facts(spec: ServedEngineSpec, loaded: LoadedJob) -> EngineFacts:
    backend = spec.chosen_backend(loaded.base_dir)
    told = f"engine: {spec.kind}, started and ended by the run"
    if backend is None:
        told += f"; {spec.model} is not here: planned with the rules of LMDeploy's PyTorch engine"
    elif backend.told:
        told += f"; {backend.told}"
    return EngineFacts(
        name=f"{spec.kind} (server)",
        model=spec.identity,
        rules=_counting(spec.rules(loaded.base_dir), _chat_format(spec, loaded)),
        resolved=spec,
        told=told,
    )


def _lmdeploy_facts(spec: LmdeployEngineSpec, loaded: LoadedJob) -> EngineFacts:
    from s1batch.engine.lmdeploy.resolution import resolve

    found = resolve(spec, loaded.base_dir)
    return EngineFacts(
        name=f"lmdeploy {found.backend}",
        model=found.identity,
        rules=found.rules,
        resolved=spec.model_copy(update={"backend": found.backend}),
        told=found.told,
    )


def _chat_format(spec: HttpEngineSpec | ServedEngineSpec, loaded: LoadedJob) -> ChatFormat | None:
    """Return the tokenizer and template that the job names; None when it names none."""
    if spec.tokenizer is None:
        return None
    from s1batch.engine.reference.chat import ChatFormat

    return ChatFormat(loaded.base_dir / Path(spec.tokenizer).expanduser())


def _counting(rules: Rules, chat: ChatFormat | None) -> Rules:
    return rules if chat is None else replace(rules, template_tokens=chat.template_tokens)


async def _open_http(spec: HttpEngineSpec, loaded: LoadedJob) -> HttpEngine:
    chat = _chat_format(spec, loaded)
    engine = await _connect(spec, loaded)
    if chat is not None:
        engine.count_by(chat.count_prompt)
    return engine


async def _connect(spec: HttpEngineSpec, loaded: LoadedJob) -> HttpEngine:
    from s1batch.engine.http.opening import open_http

    if spec.endpoints is None:
        return await open_http(spec)
    from s1batch.launching.job_endpoints import take_registered

    folder = loaded.base_dir / spec.endpoints
    try:
        return await open_http(take_registered(spec, folder))
    except EngineUnavailable as error:
        raise EngineUnavailable(error.reason, f"engine.endpoints: {folder}: {error.detail}") from error


async def _probed_facts(spec: HttpEngineSpec, loaded: LoadedJob) -> EngineFacts:
    engine = await _open_http(spec, loaded)
    try:
        told = f"engine: {engine.name}, model {engine.model.name}, rules of {engine.rules.name}"
        return EngineFacts(
            name=engine.name,
            model=engine.model,
            rules=_counting(engine.rules, _chat_format(spec, loaded)),
            resolved=engine.resolved,
            told=told,
        )
    finally:
        await engine.aclose()


def _offline_facts(spec: HttpEngineSpec, loaded: LoadedJob) -> EngineFacts:
    from s1batch.engine.http.client import rules_of

    dialect = "lmdeploy" if spec.dialect == "auto" else spec.dialect
    told = "engine: no endpoint was asked"
    if spec.dialect == "auto":
        told += "; planned with the rules of lmdeploy, the strictest that takes series (set engine.dialect)"
    identity = ModelIdentity(
        name=spec.model, revision=spec.model_revision, dtype=spec.dtype, quantisation=spec.quantisation
    )
    return EngineFacts(
        name=f"http ({dialect})",
        model=identity,
        rules=_counting(rules_of(spec, dialect), _chat_format(spec, loaded)),
        resolved=spec,
        told=told,
    )


def _located(spec: ReplayEngineSpec, loaded: LoadedJob) -> ReplayEngineSpec:
    """Return the block with its path relative to the job file made absolute."""
    if spec.path is None:
        return spec
    return spec.model_copy(update={"path": str(loaded.base_dir / spec.path)})
