"""What the reference engine costs on this machine: windows, long series, decoding.

    python tests/benchmarks/bench_reference.py [--threads 2] [--long 1000000]

Prints one line per measurement; nothing is asserted.
"""

from __future__ import annotations

import argparse
import asyncio
import resource
import time
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import torch

from s1batch.engine.reference.checkpoint import load_model
from s1batch.engine.reference.engine import ReferenceEngine
from s1batch.engine.reference.identity import NANO, model_folder
from s1batch.engine.reference.spec import ReferenceEngineSpec, open_reference
from s1batch.engine.tokens import series_tokens
from s1batch.records import Message, ModelIdentity, Request, Sampling, SeriesPart, TextPart


def question(number: int, max_tokens: int, steps: int = 0) -> Request:
    """A question of about 60 tokens, with or without a three-channel series at 100 Hz."""
    parts: list[TextPart | SeriesPart] = [TextPart(text=f"Question {number}: is there an earthquake? " * 3)]
    if steps:
        values = np.random.default_rng(number).standard_normal((steps, 3)).astype(np.float32)
        parts.insert(0, SeriesPart(values, 100.0))
    return Request(
        messages=(Message(role="user", parts=tuple(parts)),),
        sampling=Sampling(max_tokens=max_tokens, temperature=1.0),
        model=ModelIdentity(name="nano"),
        seed=number,
    )


def peak_mib() -> float:
    """Highest resident memory of this process so far, MiB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


async def windows(engine: ReferenceEngine, count: int) -> None:
    """Whole answers of one token, so that nearly all of the time is encoding and prefill."""
    await engine.answer(question(0, 1, 6000))
    begin = time.perf_counter()
    await asyncio.gather(*(engine.answer(question(number, 1, 6000)) for number in range(count)))
    each = (time.perf_counter() - begin) / count
    print(f"60 s window of 3 channels at 100 Hz, encoded and prefilled: {each * 1000:.0f} ms")


async def decoding(engine: ReferenceEngine, together: int, tokens: int) -> None:
    """Tokens per second while `together` answers grow, prefill of their short prompts included."""
    begin = time.perf_counter()
    responses = await asyncio.gather(*(engine.answer(question(number, tokens)) for number in range(together)))
    spent = time.perf_counter() - begin
    made = sum(response.output_tokens or 0 for response in responses)
    print(f"decoding, {together:2d} at once: {made / spent:.0f} tokens/s")


def long_series(steps: int, threads: int) -> None:
    """Time and added memory of one long single-channel series."""
    encoder = load_model(model_folder(NANO, Path())).model.time_series
    values = np.random.default_rng(0).standard_normal((steps, 1)).astype(np.float32)
    torch.set_num_threads(1)
    with ThreadPoolExecutor(threads, initializer=torch.set_num_threads, initargs=(1,)) as pool, torch.inference_mode():

        def spread(work: Callable[[int], None], items: Iterable[int]) -> Iterable[None]:
            return pool.map(torch.inference_mode()(work), items)

        encoder(values[:6000], 100.0, spread=spread)
        before, begin = peak_mib(), time.perf_counter()
        embeddings = encoder(values, 100.0, spread=spread)
        spent = time.perf_counter() - begin
    assert embeddings.shape[0] == series_tokens(steps, 100.0)
    print(
        f"series of {steps:,} samples, 1 channel: {spent:.1f} s, {embeddings.shape[0]:,} tokens, "
        f"{peak_mib() - before:.0f} MiB more at the peak"
    )


async def main() -> None:
    """Run all measurements."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--long", type=int, default=1_000_000, help="samples of the long series")
    options = parser.parse_args()
    long_series(options.long, options.threads)
    begin = time.perf_counter()
    engine = open_reference(ReferenceEngineSpec(kind="reference", threads=options.threads), Path())
    print(f"opening nano: {time.perf_counter() - begin:.2f} s")
    await windows(engine, 16)
    for together in (1, 8, 16):
        await decoding(engine, together, 200)
    await engine.aclose()


if __name__ == "__main__":
    asyncio.run(main())
