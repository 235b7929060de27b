"""Adversarial validation: the claims whose join with a hypothesis moves its scrubbed expected loss most.

`search` tries `moves`, each a claim joined at some place, among features that are offered, read off the data's columns,
or made from `clusters` of activations; the winner is confirmed on fresh draws. `held_out` asks the same of the
population that D is a sample of, on rows held out from the search.
"""

from pscrub.questions.adversarial.held_out import Finding, InPopulation, adversary_in_population
from pscrub.questions.adversarial.moves import Move
from pscrub.questions.adversarial.search import AdversaryResult, adversary

__all__ = ["AdversaryResult", "Finding", "InPopulation", "Move", "adversary", "adversary_in_population"]
