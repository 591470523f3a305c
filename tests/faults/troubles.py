"""What servers do wrong, as scripts for `tests.loopback`."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import orjson

from tests.loopback import Reply, hashed_answer, prompt_text

HTML = Reply(body=b"<!doctype html><h1>Welcome to the gateway</h1>", content_type="text/html")
GARBAGE = Reply(raw=b"\x00\x16\x03\x01 this is no HTTP\r\n\r\n")
ERROR_200 = Reply(body=b'{"object": "error", "message": "CUDA out of memory", "type": "internal", "code": 500}')
HANGING = Reply(hang=True)
BROKEN = Reply(status=500, body=b"Internal Server Error", content_type="text/plain")
CUT = Reply(cut=True)
DROPPED = Reply(drop=True)


def html(number: int, body: dict[str, Any]) -> Reply:
    """Every question is answered with a page for people."""
    return HTML


def garbage(number: int, body: dict[str, Any]) -> Reply:
    """What comes back is no HTTP."""
    return GARBAGE


def error_200(number: int, body: dict[str, Any]) -> Reply:
    """An error that says that all is well."""
    return ERROR_200


def hanging(number: int, body: dict[str, Any]) -> Reply:
    """Nothing comes back."""
    return HANGING


def broken(number: int, body: dict[str, Any]) -> Reply:
    """The engine behind the server is broken."""
    return BROKEN


def cut(number: int, body: dict[str, Any]) -> Reply:
    """The connection closes in mid-body."""
    return CUT


def slow(number: int, body: dict[str, Any]) -> Reply:
    """Ten times slower than the others."""
    return Reply(delay_s=0.2)


def two_hang(number: int, body: dict[str, Any]) -> Reply | None:
    """The second and the third request are never answered."""
    return HANGING if number in (1, 2) else None


def fussy(number: int, body: dict[str, Any]) -> Reply | None:
    """Questions about poison are refused."""
    if "poison" not in prompt_text(body):
        return None
    return Reply(status=400, body=b'{"error": {"message": "not about poison", "type": "invalid_request_error"}}')


def then_silent(number: int, body: dict[str, Any]) -> Reply | None:
    """A hundred answers, and no more."""
    return HANGING if number >= 100 else None


def fussy_then_silent(number: int, body: dict[str, Any]) -> Reply | None:
    """Questions about poison are refused; from the hundredth on nothing comes back."""
    return then_silent(number, body) or fussy(number, body)


def busy(number: int, body: dict[str, Any]) -> Reply | None:
    """Every third request is one too many."""
    return Reply(status=429, headers={"Retry-After": "1"}, body=b"{}") if number % 3 == 0 else None


def gossip(number: int, body: dict[str, Any]) -> Reply | None:
    """A third of the requests are refused with the key in the message; the other answers end with it."""
    key = os.environ["GOSSIP"]
    message = f"the key {key} may not do this; Authorization: Bearer {key}"
    return Reply(status=400, body=orjson.dumps({"error": {"message": message}})) if number % 3 == 0 else None


def gossiping_answer(body: dict[str, Any]) -> str:
    """An answer that ends with the key."""
    return hashed_answer(body)[:-2] + os.environ["GOSSIP"] + '"}'


def no_hurry(number: int, body: dict[str, Any]) -> Reply:
    """Answer after a second, and at once when the file that HURRY names is there."""
    return Reply(delay_s=0.0 if Path(os.environ["HURRY"]).exists() else 1.0)
