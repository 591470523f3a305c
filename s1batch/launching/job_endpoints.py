"""The endpoints of a job that names the folder in which they are registered."""

from __future__ import annotations

from pathlib import Path

from s1batch.engine.http.spec import HttpEngineSpec, normalise_url
from s1batch.errors import EngineUnavailable, UsageError
from s1batch.launching.registry import read_registry, ready_endpoints


def take_registered(spec: HttpEngineSpec, folder: Path) -> HttpEngineSpec:
    """Return the block with the endpoints that are registered now, and with what was registered about them.

    Args:
        spec: The block of the job file; its `endpoints` names the folder.
        folder: That folder.

    Raises:
        UsageError: The folder is missing or broken, or the job says single_prefill and the servers were started
            otherwise.
        EngineUnavailable: No endpoint in it is ready.
    """
    registrations = [registration for _, registration in read_registry(folder)]
    endpoints = ready_endpoints(registrations)
    if not endpoints:
        starting = sum(not each.ready for each in registrations)
        state = f"{starting} nodes are still starting" if starting else "nothing is registered there"
        raise EngineUnavailable(
            "engine_unavailable",
            f"no endpoint is ready ({state}): start them with `s1batch engine up`, wait for them with "
            "`s1batch engine check --wait`",
        )
    single = all(each.single_prefill for each in endpoints)
    if spec.single_prefill and not single:
        raise UsageError(
            f"engine.single_prefill: the servers registered in {folder} were started without smallest_prompt_tokens: "
            "leave single_prefill out, or start them with it"
        )
    urls = tuple(normalise_url(each.url) for each in endpoints)
    return spec.model_copy(update={"urls": urls, "endpoints": None, "single_prefill": single})
