"""How fast and how large pscrub is, beside rust-circuit: `make bench`, or `python -m tests.benchmarks --help`."""
