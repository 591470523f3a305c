"""Whole runs on a virtual clock: the real feeding, routing, probing and pacing against engines that are simulated.

What is real: the order of the parts and their turns (`class_turns`), the gate that lets parts in (`part_gate`), the
feeder and its turns, the HTTP engine with its encoding, parsing, retries, backoff and routing, the probes that take
endpoints out and find them again, and the pace that ends a run before its allocation does. What is simulated: the
sockets and what is behind them (`wire`, `engines`), the time, and the reading of the archive, which takes none.

    service    how long requests take
    workload   what is asked: a plan that is drawn part by part, never held as a whole
    outages    when engines are down
    engines    servers that compute some requests at a time and queue the others
    meter      what the slots of all engines did, integrated over time
    wire       what the HTTP engine takes for its connections
    ledger     which requests have their answer: each exactly once
    clients    processes of s1batch that carry parts, with walltimes and preemptions
    oracle     a bound that no scheduler can pass, whatever it knows
    run        one simulation, from its description to what came of it
    scenarios  the tables of docs/performance.md
"""
