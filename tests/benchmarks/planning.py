"""What many hypotheses on a large model would take on many GPUs, from what the folder's steps cost here.

    python -m tests.benchmarks.planning [--hypotheses 100000] [--gpus 64] [--parameters 7e9] ...

What cannot be measured on the machine at hand, as what a GPU computes in a second, is an option, and stands in the
table as what it is: an assumption.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from pscrub import Claim, Dataset, Graph, Hypothesis, Study, scrub, sweep
from pscrub.estimate.stopping import ROUND
from pscrub.evaluate.compute import MEMORY
from pscrub.records import write_record
from pscrub.report.plans import plan_table
from pscrub.result.folder import RunFiles
from pscrub.result.model import ModelHash
from pscrub.studies import load
from tests.benchmarks.scheduler import ROUNDS, simulate, study_of
from tests.benchmarks.timing import machine, table

TOGETHER = (1, 10, 100, 1_000)
"""Hypotheses that share a run folder."""
GB, HOUR = 1e9, 3600.0


@dataclass(frozen=True)
class Units:
    """What was measured on the machine at hand.

    Args:
        round_bytes: of the file of a round of 16,384 draws.
        round_write: seconds, sealed and on the disk.
        round_read: seconds.
        point_bytes: of what a point of a sweep keeps beside rounds, D of 1,000 rows.
        point_files: how many files that is.
        point_seconds: of a point on the smallest of models, its draws apart.
        begun_bytes: of these, of the file of the point's only hypothesis.
        manifest_bytes: of a hypothesis in a run folder's manifest.
        hypothesis_seconds: of a hypothesis more in a run folder, on the smallest of models, its draws apart.
        claimed: seconds of finding, claiming and giving back a round, and of its share of a point.
        hashed: seconds to hash a quarter of a GB of weights.
        shares: operations of a draw over those of f, of hypotheses about a language model: least, median, greatest.
    """

    round_bytes: float
    round_write: float
    round_read: float
    point_bytes: float
    point_files: float
    point_seconds: float
    begun_bytes: float
    manifest_bytes: float
    hypothesis_seconds: float
    claimed: float
    hashed: float
    shares: tuple[float, float, float]

    @classmethod
    def measure(cls, repeats: int) -> Units:
        """Those of this machine.

        Args:
            repeats: of what is short; medians are taken.
        """
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder)
            study = load("specificity", {})
            scrub(study, draws=ROUND, exact=False, out=path / "run")
            files, name = RunFiles(path / "run"), study.hypotheses[-1].name
            file = files.file_of(name, 0, 0)
            kept = files.read_round(name, file)
            write = median_of(lambda: write_record(kept, file), repeats)
            read = median_of(lambda: RunFiles(path / "run").read_round(name, file), repeats)
            some, more = (weigh_points(path / f"sweep-{n}", n) for n in (4, 4 + repeats))
            points = ((b - a) / repeats for a, b in zip(some, more, strict=True))
            few, many = (weigh_manifest(path / f"of-{n}", n) for n in (10, 110))
            return cls(
                file.stat().st_size,
                write,
                read,
                *points,
                next((path / "sweep-4").rglob("begun.nc")).stat().st_size,
                *((b - a) / 100 for a, b in zip(few, many, strict=True)),
                simulate(100 * ROUNDS, 4)["work"] / (100 * ROUNDS),
                median_of(hash_weights, 3),
                tell_shares(),
            )


def median_of(work: Callable[[], object], repeats: int) -> float:
    """Seconds of a call, the median over repeats."""
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        work()
        times.append(time.perf_counter() - start)
    return sorted(times)[len(times) // 2]


def weigh_points(folder: Path, points: int) -> tuple[float, float, float]:
    """Bytes, files and seconds of so many points of a sweep of two draws each, on D of 1,000 rows."""
    data = Dataset({"x": torch.arange(1_000), "y": torch.arange(1_000)})
    graph = Graph.of({"s": lambda x: x % 2, "f": lambda s, y: 1.0 * s * y}, ["x", "y"], "f")
    hypothesis = Hypothesis("h", graph, data, Claim("f", reads=[Claim("y", "y")]))
    start = time.perf_counter()
    sweep(Study("small", [hypothesis], labels="y"), folder, seeds=range(points), draws=2, exact=False)
    seconds = time.perf_counter() - start
    rounds = {path for path in folder.rglob("rounds/*/*.nc") if path.name != "begun.nc"}
    sizes = [path.stat().st_size for path in folder.rglob("*") if path.is_file() and path not in rounds]
    return sum(sizes), len(sizes), seconds


def weigh_manifest(folder: Path, hypotheses: int) -> tuple[float, float]:
    """Bytes of the manifest of a run folder of so many hypotheses, and seconds that it takes, of two draws each."""
    start = time.perf_counter()
    scrub(study_of(hypotheses), draws=2, exact=False, out=folder)
    return (folder / "manifest.json").stat().st_size, time.perf_counter() - start


def hash_weights() -> None:
    """Hash a quarter of a GB of weights, as is done for each graph when a sweep loads it."""
    weights = torch.zeros(int(GB) // 16)
    ModelHash.of(Graph.of({"f": lambda x: x + weights.sum()}, ["x"], "f"))


def tell_shares() -> tuple[float, float, float]:
    """Operations of a draw over those of f, of `induction`'s hypotheses that have draws: least, median, greatest."""
    told = plan_table(load("induction", {}), MEMORY)
    f, draw = (list(told.head).index(name) for name in ("Mflop of f", "Mflop a draw"))
    found = sorted(float(row[draw].replace(",", "")) / float(row[f].replace(",", "")) for row in told.rows)
    found = [each for each in found if each > 0]
    return found[0], found[len(found) // 2], found[-1]


def report(quick: bool = False, arguments: argparse.Namespace | None = None) -> Iterator[str]:
    """The tables, one after another.

    Args:
        quick: few repeats.
        arguments: what is planned.
    """
    arguments = add_options(argparse.ArgumentParser()).parse_args([]) if arguments is None else arguments
    units = Units.measure(4 if quick else 40)
    share = units.shares[2] if arguments.share is None else arguments.share
    yield f"### {arguments.hypotheses:,} hypotheses on a model of {arguments.parameters:.3g} parameters"
    yield "Measured on this machine by this command:"
    yield table(["measured", "", "of what"], measured(units))
    yield "Assumed (options of this command):"
    yield table(["assumed", "", "source"], assumed(arguments, share))
    yield (
        f"On {arguments.gpus} GPUs, each with a process of its own, by how many hypotheses share a run folder "
        "(`--together`). Hours are of all GPUs side by side, none waiting for another."
    )
    lines = plan(arguments, units, share)
    yield table(["together", *(f"{each:,}" for each in TOGETHER)], lines)


def measured(units: Units) -> list[list[str]]:
    """The lines of what was measured."""
    return [
        ["a round's file", f"{units.round_bytes:,.0f} bytes", f"{ROUND:,} draws of three sites"],
        ["a round written", f"{1e3 * units.round_write:.2f} ms", "sealed, and on the disk"],
        ["a round read", f"{1e3 * units.round_read:.2f} ms", "its seal checked"],
        ["a round found and claimed", f"{1e3 * units.claimed:.3f} ms", f"by 4 simulated workers, {ROUNDS} a point"],
        ["a point beside its rounds", f"{units.point_bytes:,.0f} bytes", "D of 1,000 rows, one hypothesis"],
        ["", f"{units.point_files:.1f} files", ""],
        ["", f"{1e3 * units.point_seconds:.0f} ms", "on the smallest of models, two draws"],
        [
            "of it, its hypothesis's",
            f"{units.begun_bytes:,.0f} bytes",
            "`begun.nc`, for each hypothesis of a run folder",
        ],
        ["a hypothesis in a manifest", f"{units.manifest_bytes:.0f} bytes", ""],
        [
            "a hypothesis more",
            f"{1e3 * units.hypothesis_seconds:.0f} ms",
            "in a run folder, on a small model, two draws",
        ],
        ["a GB of weights hashed", f"{4 * units.hashed:.2f} s", "SHA-256, by each process, once"],
        [
            "a draw, of one run of f",
            "{:.3f}, {:.3f}, {:.3f}".format(*units.shares),
            "`pscrub show induction --plan`: least, median, greatest",
        ],
    ]


def assumed(arguments: argparse.Namespace, share: float) -> list[list[str]]:
    """The lines of what was assumed."""
    return [
        ["parameters", f"{arguments.parameters:.3g}", "the question"],
        ["bytes of each", f"{arguments.bytes:g}", "bfloat16"],
        ["flops of a token", f"{2 * arguments.parameters:.3g}", "2 a parameter (Kaplan et al. 2020, 2.1)"],
        ["tokens of a row", f"{arguments.tokens}", "the question"],
        ["rows of D", f"{arguments.rows:,}", "the question"],
        ["draws of a hypothesis", f"{arguments.draws:,}", "the question"],
        ["a draw, of one run of f", f"{share:.3f}", "the greatest measured above, unless `--share` says otherwise"],
        [
            "flop/s of a GPU",
            f"{arguments.flops:.3g}",
            "NVIDIA's data sheet, H100 SXM, bfloat16: half of what it gives with sparsity",
        ],
        [
            "of these used",
            f"{arguments.used:g}",
            "a guess",
        ],
        ["bytes/s to a GPU's process", f"{arguments.bandwidth:.3g}", "a guess: a shared file system, all at once"],
    ]


def plan(arguments: argparse.Namespace, units: Units, share: float) -> list[list[str]]:
    """The lines of what it would take."""
    hypotheses, gpus, rounds = arguments.hypotheses, arguments.gpus, -(-arguments.draws // ROUND)
    of_f = 2 * arguments.parameters * arguments.tokens
    rate = arguments.flops * arguments.used
    weights = arguments.parameters * arguments.bytes
    all_rounds = rounds * hypotheses
    draws = hypotheses * arguments.draws * of_f * share / rate / gpus / HOUR
    rows: dict[str, list[str]] = {}

    def add(name: str, value: float, form: str = ",.3g") -> None:
        rows.setdefault(name, []).append(f"{value:{form}}")

    for together in TOGETHER:
        points = -(-hypotheses // together)
        on_data = points * arguments.rows * of_f / rate / gpus / HOUR
        hashing = weights / GB * 4 * units.hashed / HOUR  # by each process, once
        keeping = all_rounds * (units.round_write + units.claimed) / gpus / HOUR
        first, each = units.point_seconds - units.hypothesis_seconds, units.hypothesis_seconds
        around = (points * first + hypotheses * each) / gpus / HOUR
        # Of a point's files, f on D and D's weights are in proportion to rows; what a hypothesis has is there for each.
        beside = points * (units.point_bytes - units.begun_bytes + 16 * (arguments.rows - 1_000))
        beside += hypotheses * (units.begun_bytes + units.manifest_bytes)
        add("run folders", points, ",.0f")
        add("draws, hours", draws)
        add("f on D, hours", on_data)
        add("weights hashed, hours", hashing)
        add("rounds claimed and written, hours", keeping)
        add("what is around them, hours", around)
        add("all, hours", draws + on_data + hashing + keeping + around)
        add("rounds", all_rounds, ",.0f")
        add("rounds, GB", all_rounds * units.round_bytes / GB)
        add("beside rounds, GB", beside / GB)
        add("files", all_rounds + points * (units.point_files - 1) + hypotheses, ",.0f")
        add("a manifest, kB", together * units.manifest_bytes / 1e3)
        add("rounds in memory, GB a process", together * rounds * units.round_bytes / GB)
        add("moved to GPUs, GB", gpus * weights / GB, ",.0f")
        add("that takes, hours", weights / arguments.bandwidth / HOUR)
    return [[name, *cells] for name, cells in rows.items()]


def add_options(parser: argparse.ArgumentParser) -> argparse.ArgumentParser:
    """A parser that takes what is planned."""
    parser.add_argument("--hypotheses", type=int, default=100_000)
    parser.add_argument("--draws", type=int, default=2 * ROUND, help="of each hypothesis")
    parser.add_argument("--gpus", type=int, default=64)
    parser.add_argument("--parameters", type=float, default=7e9, help="of the model")
    parser.add_argument("--bytes", type=float, default=2.0, help="of a parameter")
    parser.add_argument("--tokens", type=int, default=32, help="of a row")
    parser.add_argument("--rows", type=int, default=10_000, help="of D")
    parser.add_argument("--share", type=float, help="operations of a draw over those of one run of f")
    parser.add_argument("--flops", type=float, default=989e12, help="of a GPU, a second")
    parser.add_argument("--used", type=float, default=0.3, help="the share of these that is used")
    parser.add_argument("--bandwidth", type=float, default=1e9, help="bytes a second from the files to a process")
    parser.add_argument("--quick", action="store_true", help="few repeats")
    return parser


def run(argv: Sequence[str] | None = None) -> int:
    """0, once the tables are printed."""
    arguments = add_options(argparse.ArgumentParser(description=__doc__.split("\n")[0])).parse_args(argv)
    print(f"{machine('cpu')}.")
    for part in report(arguments.quick, arguments):
        print(f"\n{part}", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(run())
