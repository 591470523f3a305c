"""s1batch beside datatrove, Daft, Ray Data and curator: the same prompts, the same server, the same measuring.

    python -m tests.benchmarks.peers setup --folder FOLDER      # virtual environments of the peers, about 2 GB
    python -m tests.benchmarks.peers run --folder FOLDER        # measures all, prints tables in Markdown
    python -m tests.benchmarks.peers run --folder FOLDER --only throughput,tail --programs s1batch,datatrove
    python -m tests.benchmarks.peers show --folder FOLDER       # prints the tables of what was measured last

Everything but `setup` stays on the loopback interface. docs/benchmarks.md says how to read the tables.
"""
