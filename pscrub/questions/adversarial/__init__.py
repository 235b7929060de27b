"""Adversarial validation: the claims whose join with a hypothesis moves its scrubbed expected loss most.

`search` tries `moves`, each a claim joined at some place, among features that are offered, read off the data's columns,
or made from `clusters` of activations; the winner is confirmed on fresh draws.
"""

from pscrub.questions.adversarial.moves import Move
from pscrub.questions.adversarial.search import AdversaryResult, adversary

__all__ = ["AdversaryResult", "Move", "adversary"]
