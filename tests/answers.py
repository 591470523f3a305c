"""Answers for the replay engine that depend on nothing but the request."""

from __future__ import annotations

import asyncio
import json
import os
import signal
from pathlib import Path

import numpy as np

from s1batch.errors import EngineError
from s1batch.records import Request


def loudest(request: Request) -> str:
    """Say that the P wave begins at the largest sample of the first channel, and the S wave at that of the second."""
    wave_TC = request.series[0].values_TC
    p, s = (int(np.argmax(np.abs(wave_TC[:, column]))) for column in (0, min(1, wave_TC.shape[1] - 1)))
    return json.dumps({"contain": True, "p_index": min(p, s), "s_index": max(p, s)})


def note(fingerprint: str) -> int:
    """Append a line to the file that ASKED names; return its number there, from 1, whoever else writes."""
    line = (fingerprint + "\n").encode()
    with Path(os.environ["ASKED"]).open("ab", buffering=0) as file:
        file.write(line)
        return file.tell() // len(line)


async def held_back(number: int) -> None:
    """Wait as HELD says: `100 FILE` holds the questions from the 100th on back until the file is there.

    So a test decides what a run has not done yet, however quick the machine is.
    """
    while _is_held(number):  # noqa: ASYNC110  the file is made by another process
        await asyncio.sleep(0.02)


def _is_held(number: int) -> bool:
    first, _, file = os.environ.get("HELD", "").partition(" ")
    return first != "" and number >= int(first) and not Path(file).exists()


async def slowly(request: Request) -> str:
    """The same, after 20 to 200 ms or when it is let go; every question is noted in the file that ASKED names."""
    await held_back(note(request.fingerprint))
    await asyncio.sleep(0.02 + int(request.fingerprint, 16) % 10 / 50)
    return loudest(request)


def sometimes(request: Request) -> str:
    """Fail on a third of the requests, until the file that MENDED names exists."""
    if int(request.fingerprint, 16) % 3 == 0 and not Path(os.environ["MENDED"]).exists():
        raise EngineError("server_error", "out of order")
    return loudest(request)


def echo(request: Request) -> str:
    """Answer with the prompt's length and first letter, as JSON."""
    return json.dumps({"length": len(request.text), "first": request.text[:1]})


async def never(request: Request) -> str:
    """Note the question and never answer."""
    note(request.fingerprint)
    await asyncio.sleep(3600)
    return loudest(request)


def interrupting(request: Request) -> str:
    """Note the question; the one that makes LAST of them sends SIGINT to the whole group, as a terminal does."""
    note(request.fingerprint)
    if len(Path(os.environ["ASKED"]).read_text().split()) == int(os.environ["LAST"]):
        os.killpg(os.getpgrp(), signal.SIGINT)
    return loudest(request)


async def poisoned(request: Request) -> str:
    """Like `slowly`, but a question whose fingerprint POISON names ends the process."""
    if request.fingerprint in os.environ.get("POISON", "").split():
        os._exit(1)
    return await slowly(request)


def shy(request: Request) -> str:
    """Find nothing anywhere."""
    return json.dumps({"contain": False, "p_index": None, "s_index": None})


def _is_first_time() -> bool:
    try:
        Path(os.environ["ASKED"] + ".broken").touch(exist_ok=False)
    except FileExistsError:
        return False
    return True


async def broken(request: Request) -> str:
    """Like `slowly`, but with a mistake that shows at the first answer."""
    answer = await slowly(request)
    if _is_first_time():
        raise ZeroDivisionError("a mistake in the program")
    return answer


def hidden(request: Request) -> str:
    """Say that the P wave begins at the largest sample, if that stands out, and else that there is nothing."""
    wave_T = np.abs(request.series[0].values_TC[:, 0])
    found = int(np.argmax(wave_T)) if wave_T.max() > 8 * wave_T.mean() else None
    return json.dumps({"contain": found is not None, "p_index": found, "s_index": None})


async def hidden_slowly(request: Request) -> str:
    """The same, after 20 to 200 ms or when it is let go; every question is noted in the file that ASKED names."""
    await held_back(note(request.fingerprint))
    await asyncio.sleep(0.02 + int(request.fingerprint, 16) % 10 / 50)
    return hidden(request)


def hidden_poisoned(request: Request) -> str:
    """The same as `hidden`, noted; but a question whose fingerprint POISON names ends the process."""
    if request.fingerprint in os.environ.get("POISON", "").split():
        os._exit(1)
    note(request.fingerprint)
    return hidden(request)


def scan_fails(request: Request) -> str:
    """The same as `hidden`, but a question about a series at less than 10 Hz gets no answer in the schema."""
    return "no idea" if request.series[0].rate_hz < 10 else hidden(request)


def only_scans(request: Request) -> str:
    """The same as `hidden` about series at less than 10 Hz; others fail."""
    if request.series[0].rate_hz >= 10:
        raise EngineError("server_error", "out of order")
    return hidden(request)


def blind_scans(request: Request) -> str:
    """The same as `hidden`, but series at less than 10 Hz hold nothing until the file that MENDED names exists."""
    if request.series[0].rate_hz < 10 and not Path(os.environ["MENDED"]).exists():
        return shy(request)
    return hidden(request)


def images(request: Request) -> str:
    """Say how many images there are, and of what kind."""
    return " ".join([str(len(request.images)), *sorted({part.mime for part in request.images})])


async def patiently(request: Request) -> str:
    """Note the question and answer four seconds later."""
    note(request.fingerprint)
    await asyncio.sleep(4)
    return loudest(request)
