"""What a run keeps as it goes, round by round, and the keeper that only remembers."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

import torch
from torch import Tensor

from pscrub.estimate.baselines import Baseline, Baselines
from pscrub.estimate.estimate import Estimate
from pscrub.records import Equal
from pscrub.result.draws import Draws, Round, SiteDraws
from pscrub.result.manifest import Manifest
from pscrub.result.result import ScrubResult, StudyResult


@dataclass(frozen=True, eq=False)
class Begun(Equal):
    """What the draws of a hypothesis are concluded from, beside them.

    Args:
        hypothesis: its name.
        law_hash: of its law.
        model: E_model.
        randomised: E_randomised.
        warnings: those that need its tree.
        sites: what can be drawn for each, nothing drawn.
        determined: nothing can be swapped, so that there is nothing to draw.
        exact: E_scrubbed where it needs no draws.
        asked: what `exact` was found for, as `Manifest.asked` tells it.
        seconds: by phase.
    """

    hypothesis: str
    law_hash: str
    model: Baseline
    randomised: Baseline
    warnings: tuple[str, ...] = ()
    sites: tuple[SiteDraws, ...] = ()
    determined: bool = False
    exact: Estimate | None = None
    asked: str = ""
    seconds: Mapping[str, float] = field(default_factory=dict)

    @property
    def against(self) -> Baselines:
        """Its baselines."""
        return Baselines(self.model, self.randomised)


def _nothing() -> Tensor:
    return torch.empty(0, dtype=torch.float64)


@dataclass(frozen=True, eq=False)
class KeptRound(Equal):
    """A finished round of one hypothesis.

    Args:
        hypothesis: its name.
        law_hash: of its law.
        run: `Manifest.identity` of the run; "" where nobody asked.
        draws: of the round.
        apart: float64 [draws that are known], f on draws of the population, if these are made.
        seconds: by phase.
    """

    hypothesis: str
    law_hash: str
    run: str
    draws: Draws
    apart: Tensor = field(default_factory=_nothing)
    seconds: Mapping[str, float] = field(default_factory=dict)

    @property
    def name(self) -> Round:
        """Seed, index and size."""
        return self.draws.rounds[0]


Tell = Callable[[ScrubResult], None]
"""What is told of a hypothesis's result."""


@dataclass(frozen=True)
class Fault:
    """What came of a round that was not made.

    Args:
        cause: why.
        worker: whose it was.
        broke: the executor broke, with all rounds that it had been given: which of them it was is not known.
    """

    cause: BaseException
    worker: str = "a worker"
    broke: bool = False


class Offer:
    """Which of the rounds that a hypothesis owes are to be made here: all of them, where nobody shares them.

    Args:
        owed: the rounds.
    """

    def __init__(self, owed: Sequence[Round]) -> None:
        self.owed = owed
        self.is_short = False
        """Some are not to be had: they are left to another shard, or given up."""
        self.faults: list[tuple[Round, Fault]] = []
        """Those that are given up."""

    @property
    def held(self) -> int:
        """How many others are at work on."""
        return 0

    def ours(self) -> Iterator[Round]:
        """Those that are to be made here, one by one; each is ours until it is put or left."""
        return iter(self.owed)

    def again(self) -> Iterator[Round]:
        """Some of those that others were at work on, if they gave up; what they finished is taken."""
        return iter(())

    def wait(self) -> None:
        """Wait a little for others."""


class Keeper(Protocol):
    """Who is told of all that a run finds, and knows what was found before."""

    @property
    def earlier(self) -> StudyResult | None:
        """The earlier result that the rounds add to."""

    @property
    def identity(self) -> str:
        """What rounds say they are of."""

    def place(self) -> Path | None:
        """A folder for files on their way, which all that share the run see; None if there is none."""

    def __enter__(self) -> Keeper:
        """Be there for a run."""

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: object) -> None:
        """And for no more."""

    def open(self, manifest: Callable[[], Manifest]) -> None:
        """Be told what the run is of."""

    def finished(self, by: tuple[str, ...], tell: Tell | None) -> StudyResult | None:
        """The result, broken down by these columns, if all that was asked for is there; then `tell` is told of each."""

    def agree(self, found: StudyResult) -> StudyResult:
        """What all that share the run hold its draws against: a result without hypotheses."""

    def begin(self, name: str, law: str, asked: str, make: Callable[[], Begun]) -> Begun:
        """What a hypothesis's draws are concluded from: as it was found before, or made now."""

    def kept(self, begun: Begun) -> dict[int, KeptRound]:
        """Its finished rounds, by index."""

    def offer(self, begun: Begun, owed: Sequence[Round], take: Callable[[KeptRound], None]) -> Offer:
        """Which rounds are to be made here.

        Args:
            begun: of the hypothesis.
            owed: its rounds.
            take: told of those that are there.
        """

    def put(self, begun: Begun, found: KeptRound) -> None:
        """Keep a round that was made."""

    def leave(self, begun: Begun, each: Round) -> None:
        """Leave a round that was not."""


class Unkept:
    """The keeper that keeps nothing: a run's rounds are in its result alone.

    Args:
        earlier: the earlier result that the rounds add to.
    """

    def __init__(self, earlier: StudyResult | None = None) -> None:
        self.earlier, self.identity = earlier, ""

    def place(self) -> None:
        """None."""

    def __enter__(self) -> Unkept:
        return self

    def __exit__(self, *exc: object) -> None:
        pass

    def open(self, manifest: Callable[[], Manifest]) -> None:
        """Nothing."""

    def finished(self, by: tuple[str, ...], tell: Tell | None) -> StudyResult | None:
        """None."""
        return None

    def agree(self, found: StudyResult) -> StudyResult:
        """The same."""
        return found

    def begin(self, name: str, law: str, asked: str, make: Callable[[], Begun]) -> Begun:
        """What is made."""
        return make()

    def kept(self, begun: Begun) -> dict[int, KeptRound]:
        """None."""
        return {}

    def offer(self, begun: Begun, owed: Sequence[Round], take: Callable[[KeptRound], None]) -> Offer:
        """All of them."""
        return Offer(owed)

    def put(self, begun: Begun, found: KeptRound) -> None:
        """Nothing: whoever made it has it."""

    def leave(self, begun: Begun, each: Round) -> None:
        """Nothing."""
