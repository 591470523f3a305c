"""A small program that stands in for `lmdeploy`, `ray` and the like: started with their command lines as arguments.

    python stand_in.py lmdeploy serve api_server MODEL --server-port 23333 --dp 2 ...

It answers questions about series as `tests.answers.loudest` does. What it does besides comes from STAND_IN, words
separated by commas:

    slow:SECONDS        healthy only after that time
    crash               writes something and ends with code 3 at once
    crash-later:SECONDS ends with code 4 after that time
    deaf                ignores SIGTERM
    family              starts a process in a group of its own, and one that detaches itself twice
    sick-when:FILE      unhealthy as long as the file exists
    log:FILE            notes the process and the hash of each question, when it arrives
    die-after:COUNT     ends with code 5 instead of answering that question, from 1, unless DIED exists; makes DIED
    pause:SECONDS       takes that long over each answer
    hold:COUNT          answers that question, from 1, and those behind it only when the file UNTIL exists
"""

from __future__ import annotations

import base64
import hashlib
import http.server
import io
import itertools
import json
import os
import signal
import socketserver
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any


def option(name: str, default: str) -> str:
    for number, word in enumerate(sys.argv):
        if word == name:
            return sys.argv[number + 1]
        if word.startswith(f"{name}="):
            return word.partition("=")[2]
    return default


WISHES = dict((word.partition(":")[::2]) for word in os.environ.get("STAND_IN", "").split(",") if word)
BEGAN = time.monotonic()
QUESTIONS = itertools.count(1)


class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        sick = WISHES.get("sick-when")
        if time.monotonic() - BEGAN < float(WISHES.get("slow", 0)) or (sick and Path(sick).exists()):
            self._answer(503, {})
        elif self.path == "/health":
            self._answer(200, {})
        elif self.path == "/v1/models":
            model = option("--model-name", sys.argv[4] if len(sys.argv) > 4 else "model")
            self._answer(200, {"object": "list", "data": [{"id": model, "owned_by": "lmdeploy"}]})
        else:
            self._answer(404, {})

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        number = next(QUESTIONS)
        if log := WISHES.get("log"):
            with Path(log).open("a") as file:
                file.write(f"{os.getpid()} {hashlib.sha1(body).hexdigest()}\n")
        if number >= int(WISHES.get("die-after", 1 << 60)) and not Path(os.environ["DIED"]).exists():
            Path(os.environ["DIED"]).touch()
            print("an illegal memory access was encountered", flush=True)
            os._exit(5)
        time.sleep(float(WISHES.get("pause", 0)))
        while number >= int(WISHES.get("hold", 1 << 60)) and not Path(os.environ["UNTIL"]).exists():
            time.sleep(0.02)
        document = json.loads(body)
        message = {"role": "assistant", "content": loudest(document)}
        usage = {"prompt_tokens": 100, "completion_tokens": 10, "total_tokens": 110}
        choice = {"index": 0, "finish_reason": "stop", "message": message}
        self._answer(200, {"model": document["model"], "choices": [choice], "usage": usage})

    def _answer(self, status: int, body: object) -> None:
        data = json.dumps(body).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, format: str, *args: object) -> None:
        return


def loudest(document: dict[str, Any]) -> str:
    """Say that the onsets are at the largest samples of the first two channels."""
    import numpy as np  # late, so that what starts says so at once

    parts = [part for message in document["messages"] for part in message["content"] if isinstance(part, dict)]
    (url,) = [part["time_series_url"]["url"] for part in parts if part["type"] == "time_series_url"]
    wave_TC = np.load(io.BytesIO(base64.b64decode(url.partition(",")[2])))
    p, s = (int(np.argmax(np.abs(wave_TC[:, column]))) for column in (0, 1))
    return json.dumps({"contain": True, "p_index": min(p, s), "s_index": max(p, s)})


class Server(socketserver.ThreadingMixIn, http.server.HTTPServer):
    daemon_threads = True


def start_family() -> None:
    """Start processes that a kill of this process's group would miss; they carry a mark in their arguments."""
    sleeper = [sys.executable, "-c", "import time; time.sleep(600)", f"family-of-{os.getpid()}"]
    subprocess.Popen(sleeper, process_group=0)
    if os.fork() == 0:
        os.setsid()
        if os.fork() == 0:
            os.execv(sleeper[0], sleeper)
        os._exit(0)
    os.wait()


def main() -> None:
    print("started with", " ".join(sys.argv[1:]), flush=True)
    print("sees the GPUs", os.environ.get("CUDA_VISIBLE_DEVICES", "of the host"), flush=True)
    if "crash" in WISHES:
        print("\x1b[31mCUDA error: out of memory\x1b[0m", flush=True)
        sys.exit(3)
    if "deaf" in WISHES:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
    if "family" in WISHES:
        start_family()
    ray = sys.argv[1] == "ray"
    first = int(option("--port", "0")) if ray else int(option("--server-port", "0"))
    each = int(option("--dp", "1")) // int(option("--nnodes", "1"))
    if first:
        for port in range(first, first + each):
            threading.Thread(target=Server(("0.0.0.0", port), Handler).serve_forever, daemon=True).start()
    if "crash-later" in WISHES:
        time.sleep(float(WISHES["crash-later"]))
        print("the engine has died", flush=True)
        os._exit(4)
    while True:
        time.sleep(600)


if __name__ == "__main__":
    main()
