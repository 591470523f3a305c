"""A small program that stands in for `lmdeploy`, `ray` and the like: started with their command lines as arguments.

    python stand_in.py lmdeploy serve api_server MODEL --server-port 23333 --dp 2 ...

What it does besides serving /health and /v1/models comes from STAND_IN, words separated by commas:

    slow:SECONDS        healthy only after that time
    crash               writes something and ends with code 3 at once
    crash-later:SECONDS ends with code 4 after that time
    deaf                ignores SIGTERM
    family              starts a process in a group of its own, and one that detaches itself twice
    sick-when:FILE      unhealthy as long as the file exists
"""

from __future__ import annotations

import http.server
import json
import os
import signal
import socketserver
import subprocess
import sys
import threading
import time
from pathlib import Path


def option(name: str, default: str) -> str:
    for number, word in enumerate(sys.argv):
        if word == name:
            return sys.argv[number + 1]
        if word.startswith(f"{name}="):
            return word.partition("=")[2]
    return default


WISHES = dict((word.partition(":")[::2]) for word in os.environ.get("STAND_IN", "").split(",") if word)
BEGAN = time.monotonic()


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

    def _answer(self, status: int, body: object) -> None:
        data = json.dumps(body).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, format: str, *args: object) -> None:
        return


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
