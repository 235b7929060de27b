"""A sweep's studies: made from a name, a function or a study, and checked against what points were made from before."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from pscrub.errors import StudyError, close
from pscrub.hypothesis.study import Study
from pscrub.records import as_tuples
from pscrub.result.model import ModelHash
from pscrub.result.provenance import data_hash, name_python
from pscrub.studies import load, read_arguments
from pscrub.sweeps.plan import Value

Source = str | Path | Study | Callable[..., Study]
"""What studies are made from: a name or file as `load` takes it, a study, or a function of parameters."""


class Maker:
    """Makes the studies of a sweep.

    Args:
        source: what they are made from.

    Raises:
        StudyError: it is nothing of the kind.
    """

    def __init__(self, source: Source) -> None:
        self.source = source
        if isinstance(source, Study):
            self.name = source.name
        elif isinstance(source, str | Path):
            self.name = Path(source).name
        elif callable(source):
            self.name = getattr(source, "__qualname__", type(source).__name__)
        else:
            kind = type(source).__name__
            raise StudyError(f"a sweep is of a study's name or file, a Study, or a function that makes one; not {kind}")

    def check(self, names: Sequence[str], combinations: Sequence[tuple[Value, ...]]) -> None:
        """Nothing, if studies can be made with such parameters, as far as that is known before one is made.

        Raises:
            StudyError: a parameter that there is not, a value that it cannot hold, or two combinations that are the
                same once values have been read.
        """
        known = dict[str, tuple[Value, ...]]()
        every = [dict(zip(names, values, strict=True)) for values in combinations]
        for values, read in zip(combinations, self._read(every), strict=True):
            told = repr(sorted(read.items()))
            if told in known:
                shown = [", ".join(f"{n}={v}" for n, v in zip(names, e, strict=True)) for e in (known[told], values)]
                raise StudyError(f"two points would be the same: {shown[0]} and {shown[1]}; give one of them")
            known[told] = values

    def _read(self, every: Sequence[Mapping[str, Value]]) -> Sequence[Mapping[str, Any]]:
        if isinstance(self.source, str | Path):
            return read_arguments(str(self.source), [{name: str(v) for name, v in given.items()} for given in every])
        if isinstance(self.source, Study):
            if every[0]:
                raise StudyError(f"parameter '{next(iter(every[0]))}' of a study that is made; give a function of it")
            return every
        taken = inspect.signature(self.source).parameters
        if not any(each.kind is inspect.Parameter.VAR_KEYWORD for each in taken.values()):
            faults = [
                f"'{self.name}' has no parameter '{key}'{close(key, taken)}" for key in every[0] if key not in taken
            ]
            if faults:
                raise StudyError(faults)
        return every

    def make(self, given: Mapping[str, Value], labels: tuple[str, ...]) -> Study:
        """The study at some parameters.

        Raises:
            StudyError: it cannot be made.
        """
        if isinstance(self.source, str | Path):
            study = load(str(self.source), {name: str(value) for name, value in given.items()})
        elif isinstance(self.source, Study):
            study = self.source
        else:
            study = self.source(**given)
            if not isinstance(study, Study):
                raise StudyError(f"'{self.name}' returned {type(study).__name__}; expected a pscrub.Study")
        return replace(study, labels=labels) if labels else study


@dataclass(frozen=True)
class Made:
    """What a study was when it was made: points of one combination of parameters are of one such study.

    Args:
        hypotheses: their names.
        data: the hash of D.
        weights: hashes of the model's weights, one for each graph.
        code: of the code and constants of the model's functions.
        python: whose bytecode that was.
    """

    hypotheses: tuple[str, ...]
    data: str
    weights: tuple[str, ...]
    code: tuple[str, ...]
    python: str

    @classmethod
    def of(cls, study: Study) -> Made:
        """That of a study."""
        graphs = dict.fromkeys(hypothesis.graph for hypothesis in study.hypotheses)
        names = tuple(hypothesis.name for hypothesis in study.hypotheses)
        models = [ModelHash.of(graph) for graph in graphs]
        return cls(
            names,
            data_hash(study.hypotheses[0].data),
            tuple(each.weights for each in models),
            tuple(each.code for each in models),
            name_python(),
        )

    @classmethod
    def read(cls, content: Mapping[str, Any]) -> Made:
        """That of plain values."""
        return cls(**{name: as_tuples(value) for name, value in content.items()})

    def plain(self) -> dict[str, Any]:
        """As plain values."""
        return asdict(self)

    def tell_apart(self, other: Made) -> list[str]:
        """In what two are different studies, in words."""
        words = {
            "hypotheses": "its hypotheses are others",
            "data": "the data are others",
            "weights": "the model's weights are others",
        }
        if self.python == other.python:
            words["code"] = "the code or the constants of the model's functions are others"
        return [said for name, said in words.items() if getattr(self, name) != getattr(other, name)]
