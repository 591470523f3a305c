"""Runs the tools of one worker: bounded in number and in time, each in a thread of its own.

Python cannot end a thread. A tool that hangs is left behind, the model is told so, and once too many hang no more are
started; as daemons they do not keep the process alive.
"""

from __future__ import annotations

import asyncio
import contextlib
import threading
import time

from s1batch.jobs.tools.function import ToolError
from s1batch.jobs.tools.toolbox import Toolbox, error_text
from s1batch.records import Record, ToolCall, ToolResult

AT_ONCE = 4
"""Tools that run at the same time: they are Python, and share the interpreter with everything else."""

MOST_HANGING = 16


class ToolRunner:
    """Runs calls on one event loop."""

    def __init__(self) -> None:
        self._slots = asyncio.Semaphore(AT_ONCE)
        self._hanging = 0

    async def run(self, toolbox: Toolbox, call: ToolCall, shown: ToolCall, record: Record) -> ToolResult:
        """Run a tool; whatever happens becomes a result.

        Args:
            toolbox: The tools and their time limit.
            call: The call as the model made it.
            shown: The call as it will stand in the conversation.
            record: The row in question, with its payload.
        """
        async with self._slots:
            began = time.monotonic()
            try:
                if self._hanging >= MOST_HANGING:
                    raise ToolError(f"not run: {self._hanging} earlier calls have not come back")
                text, failed = await self._in_thread(toolbox, call, record), False
            except ToolError as error:
                text, failed = error_text(str(error)), True
            return ToolResult(call=shown, text=text, failed=failed, seconds=time.monotonic() - began)

    async def _in_thread(self, toolbox: Toolbox, call: ToolCall, record: Record) -> str:
        loop = asyncio.get_running_loop()
        future: asyncio.Future[str] = loop.create_future()

        def deliver(text: str, error: BaseException | None) -> None:
            if future.cancelled():  # it came too late
                self._hanging -= 1
            elif error is not None:
                future.set_exception(error)
            else:
                future.set_result(text)

        def work() -> None:
            text, problem = "", None
            try:
                text = toolbox.run(call, record)
            except BaseException as error:  # noqa: BLE001 - handed to whoever waits, a bug of ours included
                problem = error
            with contextlib.suppress(RuntimeError):  # the loop was closed: nobody waits
                loop.call_soon_threadsafe(deliver, text, problem)

        threading.Thread(target=work, name=f"s1batch-tool-{call.name[:40]}", daemon=True).start()
        try:
            async with asyncio.timeout(toolbox.timeout_s):
                return await future
        except TimeoutError as error:
            self._hanging += future.cancelled()  # and not there at the very last moment
            raise ToolError(f"no result within {toolbox.timeout_s:g} s") from error
        except asyncio.CancelledError:
            self._hanging += future.cancelled()
            raise
