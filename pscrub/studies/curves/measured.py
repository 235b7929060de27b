"""Prints what is measured of HED's trunk on images of curves: its channels by kind, the chosen units, both halves.

python -m pscrub.studies.curves.measured
python -m pscrub.studies.curves.measured --model untrained
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator, Sequence

import torch

from pscrub.data.dataset import Dataset
from pscrub.errors import PscrubError
from pscrub.studies.curves.images import HALVES, ORIENTATIONS, RADII, REPEATS, is_within, make_images
from pscrub.studies.curves.model import CHANNELS, MODELS, PLACES, Trunk, load_trunk
from pscrub.studies.curves.tuning import (
    ANSWERS,
    KINDS,
    ORIENTED,
    UNITS,
    Found,
    Unit,
    correlate,
    measure_curves,
    run_trunk,
)


def tell_curves(trunk: Trunk, selection: Dataset, scoring: Dataset, found: Found) -> Iterator[str]:
    """Returns lines of what is measured, each with its newline: channels, units, then each chosen unit.

    Args:
        trunk: whose.
        selection: the half that was measured.
        scoring: the other half, for correlations and accuracies there.
        found: what `measure_curves` gives of the first.
    """
    (below, _), (_, units) = run_trunk(trunk, selection["image"]), run_trunk(trunk, scoring["image"])
    middle = below.view(-1, CHANNELS, PLACES)[:, :, PLACES // 2]
    channels = found.channels
    oriented = channels.oriented(found.least)
    quiet = (middle > 0).double().mean(0) < ANSWERS
    yield f"conv3_2: {int((oriented & channels.sided).sum())} channels tell the side of a curve, "
    yield f"{int((oriented & ~channels.sided).sum())} the tangent, {int((~oriented).sum())} are unoriented, of which "
    yield f"{int((~oriented & quiet).sum())} are above 0 in under {ANSWERS:.0%} of the images\n"
    curves = found.units.oriented(found.least) & found.units.sided
    yield f"conv3_3: {int(curves.sum())} units tell the side of a curve\n"
    yield "| unit | preferred | radius | correlation | on the other half | accuracy there | side, tangent | "
    yield " | ".join(KINDS) + " |\n"
    for unit in found.chosen:
        label, own = is_within(scoring["orientation"], unit.preferred), units[:, unit.number]
        there = float(correlate(own[:, None], label))
        waves = f"{float(found.units.once[unit.number]):.2f}, {float(found.units.twice[unit.number]):.2f}"
        counts = " | ".join(str(int(unit.kinds[kind].sum())) for kind in KINDS)
        yield f"| {unit.number} | {360 // ORIENTATIONS * unit.preferred}° | {RADII[unit.radius]:.0f} | "
        yield f"{unit.correlation:.3f} | {there:.3f} | {_accuracy(unit, own, label):.3f} | {waves} | {counts} |\n"


def _accuracy(unit: Unit, own: torch.Tensor, label: torch.Tensor) -> float:
    above = own.double() > unit.threshold
    return float((above[label].double().mean() + (~above)[~label].double().mean()) / 2)


def main(arguments: Sequence[str] | None = None) -> None:
    """Returns nothing: prints what is measured."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", choices=MODELS, default=MODELS[0], help="which model (default: trained)")
    parser.add_argument("--units", type=int, default=UNITS, help=f"how many (default: {UNITS})")
    parser.add_argument("--oriented", type=float, default=ORIENTED, help=f"from what share on (default: {ORIENTED})")
    parser.add_argument("--seed", type=int, default=0, help="of the images and of the control's weights (default: 0)")
    options = parser.parse_args(arguments)
    try:
        trunk = load_trunk(options.model, options.seed)
        selection, scoring = (make_images(half, REPEATS, options.seed) for half in HALVES)
        found = measure_curves(trunk, selection, options.units, options.oriented)
        sys.stdout.writelines(tell_curves(trunk, selection, scoring, found))
    except PscrubError as error:
        parser.error("; ".join(error.faults))


if __name__ == "__main__":
    main()
