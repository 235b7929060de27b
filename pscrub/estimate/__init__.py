"""From losses to an estimate: E_scrubbed, what it is held against, and intervals that say what they are about.

`choose` takes the interval that suits the losses; `model_loss` and `randomised_loss` are the two baselines, and
`loss_recovered` the scale between them. Intervals carry the draws' uncertainty, D being held fixed; `data_uncertainty`
is about the population that D is a sample of.
"""

from pscrub.estimate.baselines import Baseline, Baselines, model_loss, randomised_loss
from pscrub.estimate.distances import OutputDistances
from pscrub.estimate.estimate import INTERVALS, Estimate, Interval, choose, exact_estimate, mean_of_pairs
from pscrub.estimate.gradients import exact_gradient
from pscrub.estimate.known import Known
from pscrub.estimate.population import DataUncertainty, data_uncertainty
from pscrub.estimate.recovered import loss_recovered, points_recovered
from pscrub.estimate.resampled import bootstrap
from pscrub.estimate.simultaneous import simultaneous_level

__all__ = [
    "INTERVALS",
    "Baseline",
    "Baselines",
    "DataUncertainty",
    "Estimate",
    "Interval",
    "Known",
    "OutputDistances",
    "bootstrap",
    "choose",
    "data_uncertainty",
    "exact_estimate",
    "exact_gradient",
    "loss_recovered",
    "mean_of_pairs",
    "model_loss",
    "points_recovered",
    "randomised_loss",
    "simultaneous_level",
]
