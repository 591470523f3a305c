"""The floor: a loop over aiohttp that reads prompts from Parquet, posts them, and writes Parquet. Nothing else.

python tests/benchmarks/bare_loop.py URL PROMPTS OUTPUT IN_FLIGHT
"""

from __future__ import annotations

import asyncio
import sys
from typing import Any

import aiohttp
import pyarrow as pa
import pyarrow.parquet as pq


async def main(url: str, prompts: str, output: str, in_flight: int) -> None:
    """Answer all prompts."""
    rows = pq.read_table(prompts).to_pylist()
    answers: list[dict[str, Any] | None] = [None] * len(rows)
    slots = asyncio.Semaphore(in_flight)
    timeout = aiohttp.ClientTimeout(total=60)
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=in_flight), timeout=timeout) as session:

        async def one(number: int, row: dict[str, Any]) -> None:
            body = {"model": "mock", "messages": [{"role": "user", "content": row["text"]}], "temperature": 0}
            async with slots, session.post(f"{url}/v1/chat/completions", json=body) as response:
                answer = await response.json()
            answers[number] = {"id": row["id"], "response": answer["choices"][0]["message"]["content"]}

        await asyncio.gather(*(one(number, row) for number, row in enumerate(rows)))
    pq.write_table(pa.Table.from_pylist(answers), output)


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], sys.argv[2], sys.argv[3], int(sys.argv[4])))
