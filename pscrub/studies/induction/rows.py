"""Rows of the study: 20 tokens, random ones or of held-out text, and the first 11 of them again.

The last token of a row, the *query*, stands a second time, 20 places on; what is asked for is what came after it the
first time, the *target*. The place of the target's first time is the *match*: an induction head attends there.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from pscrub.data.dataset import Dataset
from pscrub.studies.induction.model import VOCABULARY
from pscrub.studies.induction.text import load_text

PERIOD, MATCH = 20, 11
LENGTH = PERIOD + MATCH
SPOKEN_OF = 64
"""Random tokens next to the match are of so many, so that many rows agree on one."""
COMMON, ROWS = 16, 4_096
"""Rows of text are those whose query so many of a half have; each half has at most so many rows."""
HALVES = ("selection", "scoring")
RowsOf = Callable[..., Tensor]
"""Makes rows of a half, and so many."""


def random_rows(half: str, count: int = ROWS) -> Tensor:
    """Tokens int64 [count, 31] of one of HALVES: in a row all of the first 20 differ.

    Tokens are uniform on the vocabulary, but for those before, at and after the query's first time, which are uniform
    on 64 tokens, the same in both halves.
    """
    shared, own = (torch.Generator().manual_seed(seed) for seed in (7, 11 + HALVES.index(half)))
    few = torch.randperm(VOCABULARY, generator=shared)[:SPOKEN_OF]
    order = torch.rand(count, VOCABULARY, generator=own).argsort(1)
    places = torch.rand(count, SPOKEN_OF, generator=own).argsort(1)[:, :3]
    spoken_of = few[places]
    # What is left of a random order when three tokens are taken out of it is a random order of the others.
    left = order[(order[:, :, None] != spoken_of[:, None]).all(2)].view(count, VOCABULARY - 3)
    before, after = left.split([MATCH - 2, VOCABULARY - 3 - (MATCH - 2)], 1)
    return _repeated(torch.cat([before, spoken_of, after], 1)[:, :PERIOD])


def text_rows(half: str, count: int = ROWS) -> Tensor:
    """Tokens int64 [at most count, 31] of one of HALVES: stretches of held-out text, each repeated once.

    Chunks of text are of the halves by turns, and stretches begin everywhere. Those are kept whose target never comes
    after the query in the other half, so that no knowledge of the text foretells it, and whose query at least COMMON of
    those kept have; of more than `count`, that many at equal distances.
    """
    chunks, _ = load_text()
    own, other = chunks[HALVES.index(half) :: 2], chunks[1 - HALVES.index(half) :: 2]
    seen = torch.zeros(VOCABULARY, VOCABULARY, dtype=torch.bool)
    seen[other[:, :-1], other[:, 1:]] = True
    stretches = own.unfold(1, PERIOD, 1).flatten(0, 1)
    kept = stretches[~seen[stretches[:, MATCH - 1], stretches[:, MATCH]]]
    queries = kept[:, MATCH - 1]
    kept = kept[torch.bincount(queries, minlength=VOCABULARY)[queries] >= COMMON]
    chosen = torch.arange(min(count, len(kept))) * len(kept) // min(count, len(kept))
    return _repeated(kept[chosen])


def as_dataset(tokens: Tensor) -> Dataset:
    """D: columns tokens int64 [N, 31]; query, target and earlier, the token before the query's first time; and once.

    `once` is 1 where the query stands nowhere else in the first 20 tokens, so that one token of context tells what
    comes next.
    """
    first = tokens[:, :PERIOD]
    query = tokens[:, -1]
    columns = {"tokens": tokens, "query": query, "target": tokens[:, MATCH], "earlier": tokens[:, MATCH - 2]}
    return Dataset(columns | {"once": ((first == query[:, None]).sum(1) == 1).long()})


def _repeated(first: Tensor) -> Tensor:
    return torch.cat([first, first[:, :MATCH]], 1)
