"""Prints what is measured of the shipped model, or another: its losses, where its heads attend, which are found.

python -m pscrub.studies.induction.measured
python -m pscrub.studies.induction.measured --weights FILE
"""

import argparse
import sys
from collections.abc import Iterator
from pathlib import Path

import torch
from torch.nn import functional

from pscrub.studies.induction.heads import attention_shares, find_heads
from pscrub.studies.induction.model import Induction
from pscrub.studies.induction.rows import HALVES, ROWS, as_dataset
from pscrub.studies.induction.study import REPEATED, SELECTED, SHIPPED, choose_model
from pscrub.studies.induction.train import tell_mean_losses


def tell_heads(model: Induction) -> Iterator[str]:
    """Returns lines of what is measured, each with its newline: attention in per cent, on the rows for selection."""
    for name, rows_of in REPEATED.items():
        rows = rows_of(HALVES[0], SELECTED)
        found = find_heads(model, rows)
        yield f"{name} repeated: previous-token heads {_listed(0, found.previous)}, "
        yield f"induction heads {_listed(1, found.induction)}\n"
        for place, shares in attention_shares(model, rows).items():
            for layer, each in enumerate(shares):
                yield f"  layer {layer} {place:20}" + "".join(f"{100 * share:6.1f}" for share in each) + "\n"


@torch.no_grad()
def tell_query_losses(model: Induction, count: int = ROWS) -> Iterator[str]:
    """Returns lines of the model's loss and accuracy at the query, by half and by how often the query stands there.

    Args:
        model: whose.
        count: rows of each half.
    """
    yield f"{'repeated':10}{'half':11}{'query stands':14}{'rows':>6}{'loss':>8}{'accuracy':>10}\n"
    for name, rows_of in REPEATED.items():
        for half in HALVES:
            data = as_dataset(rows_of(half, count))
            logits = torch.cat([model(rows)[:, -1] for rows in data["tokens"].split(256)]).double()
            losses = functional.cross_entropy(logits, data["target"], reduction="none")
            right = (logits.argmax(1) == data["target"]).double()
            for said, kept in (("once", data["once"] == 1), ("more often", data["once"] == 0)):
                if kept.any():
                    yield f"{name:10}{half:11}{said:14}{int(kept.sum()):6}"
                    yield f"{losses[kept].mean():8.3f}{right[kept].mean():10.4f}\n"


def main() -> None:
    """Returns nothing: prints what was measured of a model."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--weights", type=Path, default=SHIPPED, help="safetensors (default: the shipped ones)")
    options = parser.parse_args()
    try:
        model = choose_model(weights=options.weights)
    except (FileNotFoundError, ValueError) as error:
        parser.error(str(error))
    for lines in (tell_mean_losses(model), tell_query_losses(model), tell_heads(model)):
        sys.stdout.writelines(lines)


def _listed(layer: int, heads: tuple[int, ...]) -> str:
    return ", ".join(f"{layer}.{head}" for head in heads)


if __name__ == "__main__":
    main()
