"""What more can be asked of a hypothesis than its loss recovered.

Side by side on common random numbers (`compare`, `ladder`); what each claim costs; other ablations and ways of sharing;
how specific a hypothesis is, and the worst of what it permits; real values at every resolution, and in bins with random
offsets; whole distributions; posteriors; worked examples held against their formulas; the theorems on a study's
own data (`verify`); and an adversary that looks for claims left out.
"""

from pscrub.questions.ablations import compare_ablations, run_on_partners
from pscrub.questions.adversarial.held_out import InPopulation, adversary_in_population
from pscrub.questions.adversarial.search import AdversaryResult, adversary
from pscrub.questions.claims import ClaimCost, claim_costs
from pscrub.questions.comparison import (
    Comparison,
    Losses,
    compare,
    draw_losses,
    is_coarser,
    ladder,
)
from pscrub.questions.distributions import (
    DistributionDistance,
    OutputDistance,
    compare_distributions,
    compare_samples,
    exact_distances,
    output_distances,
)
from pscrub.questions.goodness import NodeTest, entropy_from_draws, goodness_of_fit, independence_given_output
from pscrub.questions.marks import Equivalence, equivalence
from pscrub.questions.mixtures import Mixture, scrub_mixture
from pscrub.questions.posterior import Posterior, bayesian_bootstrap
from pscrub.questions.resolution import Resolution, resolution_curve
from pscrub.questions.sharing import SharingTable, sharing_table
from pscrub.questions.specificity import Frontier, frontier, order, orders
from pscrub.questions.verification import StudyVerification, Verification, verify, verify_hypothesis
from pscrub.questions.worked import Agreement, agreements
from pscrub.questions.worst import Pessimal, PessimalRow, scrub_pessimally

__all__ = [
    "AdversaryResult",
    "Agreement",
    "ClaimCost",
    "Comparison",
    "DistributionDistance",
    "Equivalence",
    "Frontier",
    "InPopulation",
    "Losses",
    "Mixture",
    "NodeTest",
    "OutputDistance",
    "Pessimal",
    "PessimalRow",
    "Posterior",
    "Resolution",
    "SharingTable",
    "StudyVerification",
    "Verification",
    "adversary",
    "adversary_in_population",
    "agreements",
    "bayesian_bootstrap",
    "claim_costs",
    "compare",
    "compare_ablations",
    "compare_distributions",
    "compare_samples",
    "draw_losses",
    "entropy_from_draws",
    "equivalence",
    "exact_distances",
    "frontier",
    "goodness_of_fit",
    "independence_given_output",
    "is_coarser",
    "ladder",
    "order",
    "orders",
    "output_distances",
    "resolution_curve",
    "run_on_partners",
    "scrub_mixture",
    "scrub_pessimally",
    "sharing_table",
    "verify",
    "verify_hypothesis",
]
