"""Draws docs/studies/curves.svg: images, tuning of units and of what they read, and weights by orientation and place.

python docs/studies/draw_curves.py
"""

from pathlib import Path
from typing import Any

import matplotlib
import torch
from matplotlib.figure import Figure

from pscrub.data import Dataset
from pscrub.studies.curves.images import ORIENTATIONS, RADII, angles, make_images
from pscrub.studies.curves.model import CHANNELS, PLACES, Trunk, load_trunk
from pscrub.studies.curves.tuning import KINDS, Found, lay_out_places, measure_curves

FILE = Path(__file__).with_name("curves.svg")
DEGREES = 360 // ORIENTATIONS
BIN = 30


def draw_curve_tuning(trunk: Trunk, data: Dataset, found: Found) -> Figure:
    """A figure of four parts: images; units' tuning; that of what they read; weights on the unit's curve and off it.

    Args:
        trunk: the model.
        data: the selection half.
        found: what was measured on it.
    """
    figure = Figure(figsize=(10, 7), layout="constrained")
    (first, second), (third, fourth) = figure.subplots(2, 2)
    _show_images(first, data)
    about = (torch.arange(ORIENTATIONS) - ORIENTATIONS // 2) * DEGREES
    for unit in found.chosen:
        curve = found.units.curves[:, unit.number]
        second.plot(about, _centre(curve / curve.max(), unit.preferred), lw=1.2, label=str(unit.number))
    second.set(title="units of conv3_3", ylabel="mean activation, of its largest")
    second.legend(frameon=False, ncols=2, fontsize=7)
    peak = found.channels.curves.max(0).values.clamp(min=1e-9)
    for kind in KINDS[:-1]:
        own = [_centre((found.channels.curves / peak)[:, unit.kinds[kind]], unit.preferred) for unit in found.chosen]
        third.plot(about, torch.cat(own, 1).mean(1), label=kind, lw=1.4)
    third.set(title="what they read: channels of conv3_2", ylabel="mean activation, of its largest")
    third.legend(frameon=False, fontsize=7)
    for axes in (second, third):
        axes.set(
            xlabel="orientation of the curve less the unit's, degrees", xticks=range(-180, 181, 90), ylim=(0, 1.05)
        )
    _show_weights(fourth, trunk, found)
    for axes in (second, third, fourth):
        axes.spines[["top", "right"]].set_visible(False)
    return figure


def _show_images(axes: Any, data: Dataset) -> None:
    chosen = [
        torch.nonzero((data["orientation"] == 3 * column) & (data["radius"] == row))[0]
        for row in range(len(RADII))
        for column in range(6)
    ]
    shown = data["image"][torch.cat(chosen)].mean(1).view(len(RADII), 6, 40, 40)
    axes.imshow(
        shown.permute(0, 2, 1, 3).reshape(40 * len(RADII), 240), cmap="gray", vmin=-120, vmax=120, interpolation="none"
    )
    axes.set(title="images: orientation by radius", xticks=[20 + 40 * c for c in range(6)], yticks=[])
    axes.set_xticklabels([f"{3 * c * DEGREES}\N{DEGREE SIGN}" for c in range(6)])
    axes.set_yticks([20 + 40 * r for r in range(len(RADII))], [f"{radius:.0f} px" for radius in RADII])


def _show_weights(axes: Any, trunk: Trunk, found: Found) -> None:
    """Mean weight from curve channels by the angle from the unit's curve at the place, on it and off it."""
    curves = found.channels.oriented(found.least) & found.channels.sided
    bins = torch.arange(-180, 180, BIN)
    for on, name in ((True, "places on the unit's curve"), (False, "other places")):
        apart, weights = [], []
        for unit in found.chosen:
            towards = angles(torch.tensor(unit.preferred)).double()
            to_centre = RADII[unit.radius] * torch.stack([towards.cos(), towards.sin()]) - lay_out_places()
            local = torch.atan2(to_centre[:, 1], to_centre[:, 0])
            weight = trunk.last.weight[unit.number].detach().view(CHANNELS, PLACES)
            taken = curves[:, None] & (unit.on_curve == on)
            apart.append(torch.rad2deg(found.channels.towards[:, None] - local)[taken])
            weights.append(weight[taken])
        angle, weight = (torch.cat(apart) + 180 + BIN / 2) % 360 - 180 - BIN / 2, torch.cat(weights)
        means = [weight[(angle >= low - BIN / 2) & (angle < low + BIN / 2)].mean() * 1000 for low in bins.tolist()]
        axes.plot([*bins.tolist(), 180], [*means, means[0]], label=name, lw=1.4)
    axes.axhline(0, color="0.7", lw=0.8)
    axes.set(title="weights from curve channels", ylabel="mean weight, thousandths", xticks=range(-180, 181, 90))
    axes.set(xlabel="channel's orientation less the unit's curve's at the place, degrees")
    axes.legend(frameon=False, fontsize=7)


def _centre(curves: torch.Tensor, preferred: int) -> torch.Tensor:
    return curves.roll(ORIENTATIONS // 2 - preferred, 0)


if __name__ == "__main__":
    selection = make_images("selection")
    model = load_trunk()
    with matplotlib.rc_context({"svg.hashsalt": "pscrub"}), torch.no_grad():
        draw_curve_tuning(model, selection, measure_curves(model, selection)).savefig(FILE, metadata={"Date": None})
