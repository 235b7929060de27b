"""Prints the table by unit of docs/studies/curves.md: the study's rows, each unit's correlation by itself.

python docs/studies/curves_by_unit.py
python docs/studies/curves_by_unit.py --oriented 0.2
"""

import argparse
import sys
from collections.abc import Iterator, Mapping

import torch
from torch import Tensor

from pscrub import Study, unroll
from pscrub.estimate import Estimate, choose
from pscrub.evaluate import Engine
from pscrub.law import draw
from pscrub.studies import load
from pscrub.studies.curves.graphs import ANSWERS

ROWS = ("1a", "1b", "1c", "3d", "4a", "4b", "4d", "4e")
DIFFERENCES = (("4a", "4b"), ("4d", "4e"))
DRAWS, SEED, LEVEL = 16_384, 0, 0.95


class Answers:
    """Keeps the scrubbed answers [draws, units]."""

    names = (ANSWERS,)

    def __init__(self) -> None:
        self.seen: list[Tensor] = []

    def see(self, made: Mapping[str, Tensor], own: Mapping[str, Tensor]) -> None:
        """Keep those of a chunk."""
        self.seen.append(made[ANSWERS])


def score_units(study: Study) -> Iterator[str]:
    """Returns lines of a table: by unit the correlation, what each of ROWS keeps of it in per cent, and DIFFERENCES."""
    data, graph = study.hypotheses[0].data, study.hypotheses[0].graph
    engine = Engine(data)
    labels = graph.nodes["correlation"].fn.labels[data["orientation"]]
    whole = (engine.on_data(graph).on_data(ANSWERS) * labels).mean(0)
    kept: dict[str, Tensor] = {}
    for name in ROWS:
        tree = unroll(next(each for each in study.hypotheses if each.name.startswith(name)))
        drawn, watch = draw(tree, DRAWS, (SEED,)), Answers()
        engine.f(tree, drawn, watch)
        products = torch.cat(watch.seen) * labels[drawn[tree.root]]
        every = products.mean(1, keepdim=True) / whole.mean()
        kept[name] = 100 * torch.cat([products / whole, every], 1)
    for one, other in DIFFERENCES:  # paired: rows share their root images
        kept[f"{one} less {other}"] = kept[one] - kept[other]
    yield f"| unit | correlation | {' | '.join(kept)} |\n|---|{'---:|' * (1 + len(kept))}\n"
    names = [*(name.removeprefix("unit ") for name in graph.reads(ANSWERS)), "all"]
    for place, (name, own) in enumerate(zip(names, [*whole.tolist(), float(whole.mean())], strict=True)):
        ends = " | ".join(_say(choose(each[:, place], LEVEL)) for each in kept.values())
        yield f"| {name} | {own:.3f} | {ends} |\n"


def _say(estimate: Estimate) -> str:
    return f"{estimate.value:.1f} [{estimate.low:.1f}, {estimate.high:.1f}]"


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--oriented", default="0.15", help="from what share on a channel is oriented (default: 0.15)")
    parser.add_argument("--seed", default="0", help="of images and controls (default: 0)")
    options = parser.parse_args()
    sys.stdout.writelines(score_units(load("curves", {"oriented": options.oriented, "seed": options.seed})))
