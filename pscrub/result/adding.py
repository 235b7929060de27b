"""What the rounds in a run folder add up to: the result, made from the files alone, without model or data."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, replace

from pscrub.errors import DamagedError
from pscrub.estimate.estimate import Interval
from pscrub.progress import add_seconds
from pscrub.result.folder import EARLIER, RunFiles
from pscrub.result.keeping import Begun, KeptRound
from pscrub.result.result import ScrubResult, StudyResult
from pscrub.result.rounds import Rounds
from pscrub.result.running import finish

RESULT = "result.nc"


@dataclass(frozen=True, eq=False)
class Part:
    """What a folder has of one hypothesis.

    Args:
        begun: what its draws are concluded from.
        rounds: the finished rounds, and which are owed; None where there is nothing to draw.
        interval: which was asked for.
        before: the earlier result that the rounds add to.
    """

    begun: Begun
    rounds: Rounds | None
    interval: Interval
    before: ScrubResult | None

    @property
    def owed(self) -> int:
        """Draws that are still to be made, as far as the rounds that are there tell."""
        return 0 if self.rounds is None else sum(each.size for each in next(iter(self.rounds), ()))

    @property
    def is_empty(self) -> bool:
        """Whether there is nothing to conclude anything from."""
        return self.rounds is not None and not self.rounds.made and self.before is None

    def conclude(self) -> ScrubResult:
        """Its result; cut short if rounds are owed."""
        owed = self.owed > 0
        return finish(self.begun, self.rounds, self.interval, self.before, cut_short=owed)


def read_parts(files: RunFiles, without_damaged: bool = False) -> tuple[dict[str, Part], list[str]]:
    """Hypothesis -> what there is of it, for those that were begun; and what was left out as damaged.

    Args:
        files: of the folder.
        without_damaged: use the rest where files are damaged.

    Raises:
        DamagedError: with every file that is not as it was written, or of another run.
    """
    manifest, found, faults = files.manifest, dict[str, Part](), list[str]()
    asked, known = manifest.asked, files.study().reference.known
    interval = Interval(asked.interval, asked.level, asked.bounds, known)
    path = files.path / EARLIER
    earlier = {each.hypothesis: each for each in StudyResult.load(path).results} if path.exists() else {}
    for name in manifest.names:
        made: dict[int, KeptRound] = {}
        begun: Begun | None = None
        try:
            begun = files.begun(name)
        except DamagedError as error:
            faults += error.faults
        for _, index, file in files.files_of(name):
            try:
                made[index] = files.read_round(name, file)
            except DamagedError as error:
                faults += error.faults
        if begun is None:
            continue
        if begun.asked != repr(asked) and not begun.determined:
            begun = replace(begun, exact=None)  # found for other options
        before = earlier.get(name)
        rounds = Rounds(
            asked.stop,
            manifest.seed,
            made,
            begun.against,
            interval,
            None if before is None else before.draws,
            one=begun.exact is not None,
        )
        found[name] = Part(begun, None if begun.determined else rounds, interval, before)
    if faults and not without_damaged:
        raise DamagedError([*faults, "use the rest with --without-damaged"])
    return found, faults


def add_up(files: RunFiles, known: StudyResult | None = None, without_damaged: bool = False) -> StudyResult:
    """The result of all rounds that are there, of the hypotheses that have any.

    What draws on D do not show is not in it: values in the population, and what claims cost.

    Args:
        files: of the folder.
        known: an earlier result; what it has beside, of the very rounds that are there, is taken over.
        without_damaged: use the rest where files are damaged; the notes say what was left out.

    Raises:
        DamagedError: as `read_parts`.
    """
    study, (parts, faults) = files.study(), read_parts(files, without_damaged)
    there: Mapping[str, ScrubResult] = {} if known is None else {each.hypothesis: each for each in known.results}
    results = []
    for name, part in parts.items():
        if part.is_empty:
            continue
        result, other = part.conclude(), there.get(name)
        results.append(other if other is not None and is_same(result, other) else result)
    if known is not None and len(there) == len(results) and all(each is there.get(each.hypothesis) for each in results):
        return known
    cut_short = len(results) < len(files.manifest.names) or any(each.cut_short for each in results)
    notes = [*study.notes, *(f"Left out: {fault}" for fault in faults)]
    if files.manifest.population and any(each.data is None for each in results):
        notes.append("Values in the population are not in it: the same command again gives them, and draws nothing.")
    return replace(
        study,
        results=tuple(results),
        seconds=add_seconds(study.seconds, *(each.seconds for each in results)),
        cut_short=cut_short,
        notes=tuple(notes),
        level=files.manifest.asked.level,
    )


def is_same(result: ScrubResult, other: ScrubResult) -> bool:
    """Whether two results are of the same draws, concluded alike, whatever else one of them has."""
    same = (result.law_hash, result.scrubbed, result.recovered, result.cut_short, result.stopping, result.interval)
    return same == (
        other.law_hash,
        other.scrubbed,
        other.recovered,
        other.cut_short,
        other.stopping,
        other.interval,
    ) and (result.draws.rounds == other.draws.rounds)


def read_result(files: RunFiles, without_damaged: bool = False) -> StudyResult:
    """The result of a folder: what its rounds add up to, with what was saved of just these; else what was saved.

    Args:
        files: of a run folder, or of one with a saved result only.
        without_damaged: use the rest where files are damaged.

    Raises:
        DamagedError: as `read_parts`; or the result is damaged, and there are no rounds.
        StudyError: neither is there.
    """
    saved = files.path / RESULT
    if not files.is_run:
        return StudyResult.load(files.path)
    known: StudyResult | None = None
    if saved.exists():
        with suppress(DamagedError):  # it is made anew
            known = StudyResult.load(saved)
    return add_up(files, known, without_damaged)
