"""How does a unit of HED's trunk tell a curve's orientation? Channels before it, what they tell, where they stand.

The claims are those of the published study of curve detectors (of another network, InceptionV1): a curve detector is
computed from earlier curves and lines, which stand along its curve. Units, their orientations and the channels' are
measured on images that are not scored.
"""

from __future__ import annotations

from dataclasses import replace

from pscrub.errors import StudyError, close
from pscrub.hypothesis.study import Study
from pscrub.studies.curves.graphs import BEHAVIOURS
from pscrub.studies.curves.images import REPEATS, make_images
from pscrub.studies.curves.ladder import CurveLadder
from pscrub.studies.curves.model import load_trunk
from pscrub.studies.curves.tuning import KINDS, ORIENTED, UNITS, Found, measure_curves

MOST = 40
DRAWS = 4_096
"""Intervals are at most four points wide, after half a minute of one core."""


def study(
    behaviour: str = "correlation",
    model: str = "trained",
    units: int = UNITS,
    unit: int | None = None,
    oriented: float = ORIENTED,
    repeats: int = REPEATS,
    only: str = "",
    seed: int = 0,
) -> Study:
    """The study on HED's trunk, or on a control that has learnt nothing.

    Args:
        behaviour: f, averaged over units: the "correlation" of activation and whether the curve is within 30 degrees of
            the unit's preferred orientation; or "accuracy", at a threshold, of telling that.
        model: "trained"; "shuffled", the entries of its weights permuted; "untrained", random weights. For each
            channels and units are measured anew.
        units: how many, those with the largest correlation on the selection half.
        unit: one of these by its number, by itself; by default all.
        oriented: from what share of its variance on, told by orientation, a channel or unit is oriented.
        repeats: images of each orientation and radius; D has 96 times as many.
        only: how the names of the rows to score begin, with commas between ("1,4a"); by default all.
        seed: of the images, and of the controls: random channels, shuffled places and features, weights.

    Raises:
        StudyError: the model is not installed (says how to install it), an unknown behaviour, model or unit, or a
            number that is not possible.
    """
    faults = []
    if behaviour not in BEHAVIOURS:
        faults.append(f"behaviour is '{behaviour}'{close(behaviour, BEHAVIOURS)}; one of {', '.join(BEHAVIOURS)}")
    if not 1 <= units <= MOST:
        faults.append(f"units is {units}; expected 1 to {MOST}")
    if not 0 < oriented < 1:
        faults.append(f"oriented is {oriented}; expected a share between 0 and 1")
    if not set(only.replace(" ", "")[:1]) <= set("01234"):
        faults.append(f"only is '{only}'; rows begin with 0 to 4, as '1a' or '2'")
    if faults:
        raise StudyError(faults)
    trunk = load_trunk(model, seed)
    found = measure_curves(trunk, make_images("selection", repeats, seed), units, oriented)
    if unit is not None:
        chosen = tuple(each for each in found.chosen if each.number == unit)
        if not chosen:
            known = ", ".join(str(each.number) for each in found.chosen)
            raise StudyError(f"unit is {unit}; expected one of those chosen on the selection half: {known}")
        found = replace(found, chosen=chosen)
    ladder = CurveLadder(trunk, make_images("scoring", repeats, seed), found, behaviour, seed)
    wanted = tuple(begin.strip() for begin in only.split(","))
    rows = [each for each in ladder.hypotheses() if each.name.startswith(wanted)]
    if not rows:
        raise StudyError(f"only is '{only}': no row's name begins so; rows are named as '1a' or '1d the 20'")
    summary = __doc__.split("\n")[0]
    notes, by = tell_chosen(found), ("radius", "light")
    return Study("curves", rows, summary, labels=("orientation",), notes=notes, by=by, draws=DRAWS)


def tell_chosen(found: Found) -> tuple[str, ...]:
    """Lines that name the units, and say how many channels of each kind they read on average."""
    units = ", ".join(f"{unit.number} ({15 * unit.preferred}\N{DEGREE SIGN})" for unit in found.chosen)
    counts = [
        f"{sum(int(unit.kinds[kind].sum()) for unit in found.chosen) / len(found.chosen):.0f} {kind}" for kind in KINDS
    ]
    return (
        f"Units of conv3_3, chosen on other images: {units}.",
        f"They read on average {', '.join(counts)}. In 1 to 3 and 4a to 4c what is not named is of other images.",
    )
