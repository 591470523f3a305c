"""Simulate runs on many engines with the real feeding and routing code, and compare them with an oracle.

    python -m tests.benchmarks.simulate                        # the tables, in their small size
    python -m tests.benchmarks.simulate --table sizes --requests 1e6
    python -m tests.benchmarks.simulate --engines 64 --requests 1e6 --service lognormal:0.5 --stragglers 1% \\
        --fail-every 1h --repair 10m
    python -m tests.benchmarks.simulate --engines 16 --clients 4 --walltime 1h --preempt-every 2h --measured RESULTS

With --engines one world is simulated; without, the tables. Times are numbers with s, m or h.
"""

from __future__ import annotations

import argparse
import logging
import re
import sys
import time
from pathlib import Path

from s1batch.errors import S1BatchError
from tests.benchmarks.harness import load, table
from tests.benchmarks.simulate.report import HEAD, MEANING, row
from tests.benchmarks.simulate.run import Setup, simulate
from tests.benchmarks.simulate.scenarios import TABLES, Scenario
from tests.benchmarks.simulate.service import describe, measured, parse_service, with_stragglers

SMALL = 20_000


def seconds(text: str) -> float:
    """Read `90`, `90s`, `10m` or `1.5h`."""
    found = re.fullmatch(r"(\d+(?:\.\d+)?)([smh]?)", text)
    if found is None:
        raise argparse.ArgumentTypeError(f"{text!r} is no time: 90s, 10m, 1.5h")
    return float(found[1]) * {"": 1.0, "s": 1.0, "m": 60.0, "h": 3600.0}[found[2]]


def share(text: str) -> float:
    """Read `1%` or `0.01`."""
    value = float(text.removesuffix("%")) / (100.0 if text.endswith("%") else 1.0)
    if not 0.0 <= value <= 1.0:
        raise argparse.ArgumentTypeError(f"{text!r} is no share: 0% to 100%")
    return value


def count(text: str) -> int:
    """Read `20000` or `1e6`."""
    value = float(text)
    if value < 1 or value != int(value):
        raise argparse.ArgumentTypeError(f"{text!r} is no number of requests")
    return int(value)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m tests.benchmarks.simulate",
        description=__doc__,
        epilog=MEANING,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--requests", type=count, default=SMALL, help="how many (20,000)")
    parser.add_argument("--table", choices=tuple(TABLES), help="one table only")
    parser.add_argument("--seed", type=int, default=0, help="of all that is drawn")
    parser.add_argument("--quiet", action="store_true", help="no progress on standard error")
    world = parser.add_argument_group("one world")
    world.add_argument("--engines", type=int, help="how many")
    world.add_argument("--slots", type=int, default=16, help="requests that each computes at a time (16)")
    world.add_argument("--service", default="lognormal:0.5", help="constant, exponential or lognormal:SIGMA")
    world.add_argument("--mean", type=seconds, default=20.0, help="its mean (20s)")
    world.add_argument("--measured", type=Path, help="take the times from a results folder, or a file of --describe")
    world.add_argument("--stragglers", type=share, default=0.0, help="share of requests that take longer")
    world.add_argument("--factor", type=float, default=10.0, help="so many times as long (10)")
    world.add_argument("--batching", type=float, default=1.0, help="how many times faster a request alone is (1)")
    world.add_argument("--fail-every", type=seconds, help="mean time between failures of all engines together")
    world.add_argument("--each-fails-every", type=seconds, help="mean time for which one engine works")
    world.add_argument("--repair", type=seconds, default=600.0, help="how long an engine is down (10m)")
    world.add_argument("--silent", action="store_true", help="failures are nodes that vanish without a word")
    world.add_argument("--shapes", type=int, choices=(1, 2, 3, 4), default=1, help="of series, kept apart (1)")
    world.add_argument("--clients", type=int, default=1, help="shards that share the engines (1)")
    world.add_argument("--in-flight", type=int, help="requests of all clients together (a quarter more than slots)")
    world.add_argument("--walltime", type=seconds, help="limit of each client's allocation")
    world.add_argument("--preempt-every", type=seconds, help="mean time after which a client is killed")
    world.add_argument("--requeue", type=seconds, default=60.0, help="from its end to its next beginning (60s)")
    world.add_argument("--timeout", type=seconds, default=3600.0, help="engine.timeout_s of the job (1h)")
    world.add_argument("--parts-in-flight", type=int, help="run.parts_in_flight of the job")
    parser.add_argument("--describe", metavar="RESULTS", type=Path, help="print a run's times for --measured, and end")
    parser.add_argument("--where", default="", help="with --describe: the machine, in words")
    return parser


def _setup(given: argparse.Namespace) -> Setup:
    service = measured(given.measured) if given.measured else parse_service(given.service, given.mean)
    return Setup(
        requests=given.requests,
        engines=given.engines,
        slots=given.slots,
        service=with_stragglers(service, given.stragglers, given.factor),
        batching=given.batching,
        shapes=given.shapes,
        fail_every_s=given.fail_every,
        each_fails_every_s=given.each_fails_every,
        repair_s=given.repair,
        silent=given.silent,
        clients=given.clients,
        in_flight=given.in_flight,
        walltime_s=given.walltime,
        preempt_every_s=given.preempt_every,
        requeue_s=given.requeue,
        timeout_s=given.timeout,
        parts_in_flight=given.parts_in_flight,
        seed=given.seed,
    )


def _print(title: str, scenarios: list[Scenario], *, progress: bool) -> None:
    rows, peak_mb, began = [], 0.0, time.monotonic()
    for name, setup in scenarios:
        if progress:
            print(f"{name} ...", file=sys.stderr, flush=True)
        outcome = simulate(setup, progress=progress)
        rows.append(row(name, outcome))
        peak_mb = outcome.peak_mb
    print(table(title, HEAD, rows))
    print(f"{time.monotonic() - began:.0f} s, peak {peak_mb:.0f} MB ({load()})\n", flush=True)


def main() -> None:
    """Simulate and print."""
    given = _parser().parse_args()
    progress = not given.quiet
    logging.getLogger("s1batch").setLevel(logging.ERROR)  # each failure is a warning there
    try:
        if given.describe is not None:
            sys.stdout.write(describe(given.describe, given.where))
        elif given.engines is not None:
            setup = _setup(given)
            name = f"{setup.engines} engines, {setup.requests:,} requests"
            _print("One world", [(name, setup)], progress=progress)
        else:
            for title, scenarios in (TABLES[given.table],) if given.table else TABLES.values():
                _print(f"{title}; {given.requests:,} requests", list(scenarios(given.requests)), progress=progress)
    except (ValueError, OSError, S1BatchError) as error:
        sys.exit(f"simulate: {error}")


if __name__ == "__main__":
    main()
