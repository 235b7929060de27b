"""A circuit's claims written as the lines that `circuit` reads."""

from __future__ import annotations

from pscrub.hypothesis.claim import EXACT
from pscrub.hypothesis.hypothesis import Hypothesis


def write_circuit(hypothesis: Hypothesis) -> str:
    """A circuit's lines, as `circuit` reads them.

    Args:
        hypothesis: one that `circuit` made, or whose claims below the root have names as it reads them.

    >>> print(write_circuit(h))  # doctest: +SKIP
    logits@END <- 9.9@END 10.0@END
    """
    root, lines, sayings = hypothesis.claim, [], []
    for claim in hypothesis.claims[0 if _is_said(hypothesis) else 1 :]:
        if claim.reads:
            arrow = "<=" if claim.paths == "any" else "<-"
            lines.append((claim.name, [arrow, *(read.name for read in claim.reads)]))
        # Exact is what a part that reads nothing is, unless the rest is so too: then every such part says a feature.
        plain = claim.feature == EXACT if isinstance(claim.feature, str) else claim.feature is None
        exact_leaf = claim is not root and (root.rest != EXACT or claim.at in hypothesis.data.names)
        said = claim.words or ("" if plain and (claim.reads or exact_leaf) else claim.feature_name)
        rest = f"rest={claim.rest}" if claim.reads and claim.rest != root.rest else ""
        if (said or rest) and not claim.name.endswith(f"({said})"):
            sayings.append((claim.name, [":", *(each for each in (said, rest) if each)]))
    width = max((len(name) for name, _ in [*lines, *sayings]), default=0)
    return "\n".join(f"{name:{width}} {' '.join(words)}" for name, words in [*lines, *sayings])


def _is_said(hypothesis: Hypothesis) -> bool:
    """Whether a line has to say what f is claimed to be: not the logits and then its own columns, each exact."""
    root, columns = hypothesis.claim, hypothesis.data.names
    own = [read.at in columns for read in root.reads]
    kept = not any(name in columns for name in hypothesis.unimportant(root))
    return root.feature is not None or root.paths == "any" or all(own) or own != sorted(own) or not kept
