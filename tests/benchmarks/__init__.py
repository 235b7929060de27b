"""How fast and how large pscrub is, beside rust-circuit: `make bench`, or `python -m tests.benchmarks --help`."""

import os

# On cores that others use too, OpenMP threads that wait by spinning take the time of those that they wait for: the
# checks of the bracket graph were measured 5 to 20 times slower so. It must be said before torch is loaded.
os.environ.setdefault("OMP_WAIT_POLICY", "passive")
