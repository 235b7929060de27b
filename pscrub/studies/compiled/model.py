"""Compiled programs as they are shipped: components with their weights, the circuit, and what the program means."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from torch import Tensor

SHIPPED = Path(__file__).parent / "programs.safetensors"
PROGRAMS = ("frac_prevs", "hist", "reverse", "sort_unique", "pair_balance")
TOKENS = "tokens"
"""The variable that is the input."""
SHARE = ".share"
"""Behind a variable's name: the head whose share of attention left at the start tells how many were selected."""


@dataclass(frozen=True)
class Component:
    """A head, or a group of neurons: what computes one variable of the program, or half of it.

    Args:
        name: of the variable; `.share` behind it if a head only prepares it.
        stage: half layers before it; it may read what was written at earlier stages.
        weights: of a head query, key, value [direction, width] and out [width, direction]; of neurons in and out.
        divisor: of a head's scores.
        reads: part ("q", "k", "v", or "in") -> the variables that the program says it reads.
    """

    name: str
    stage: int
    weights: Mapping[str, Tensor]
    divisor: float
    reads: Mapping[str, tuple[str, ...]]

    @property
    def is_head(self) -> bool:
        """Whether it is a head."""
        return "query" in self.weights

    @property
    def variable(self) -> str:
        """The variable of the program that it computes."""
        return self.name.removesuffix(SHARE)


@dataclass(frozen=True)
class Program:
    """A compiled program.

    Args:
        name: one of PROGRAMS.
        text: the program in RASP.
        output: the component whose variable is the answer.
        directions: what each direction of the residual stream is.
        tokens: what each token is; "BOS" stands at the start, "PAD" fills up.
        embedding: float32 [token, direction].
        positions: float32 [place, direction]: of each place and, at all of them, 1 along "one".
        components: in the model's order.
        sequences: int64 [row, place]: D, all sequences of tokens up to the longest, padded.
        values: variable -> int64 [row, place - 1], the place of its value in `named`, -1 where there is no token.
        named: variable -> its values, ascending.
        numerical: the answer is a number along one direction, and not the largest of several.
        outputs: float32 [row, place - 1, answer direction]: what Tracr's own model gave; 0 where there is no token.
    """

    name: str
    text: str
    output: str
    directions: tuple[str, ...]
    tokens: tuple[str, ...]
    embedding: Tensor
    positions: Tensor
    components: tuple[Component, ...]
    sequences: Tensor
    values: Mapping[str, Tensor]
    named: Mapping[str, tuple[Any, ...]]
    numerical: bool
    outputs: Tensor

    @property
    def kept(self) -> Tensor:
        """bool [row, place]: where a sequence has a token, or its start."""
        return self.sequences != self.tokens.index("PAD")

    @property
    def answers(self) -> tuple[str, ...]:
        """What an answer can be: the values along which the answer's directions lie, or those that its number takes."""
        if self.numerical:
            return tuple(f"{value:g}" for value in self.named[self.output])
        return tuple(self.directions[place].partition(":")[2] for place in self.answer_directions)

    @property
    def answer_directions(self) -> tuple[int, ...]:
        """The directions of the residual stream that the answer is read from."""
        return tuple(i for i, name in enumerate(self.directions) if name.partition(":")[0] == self.output)

    def text_of(self, row: int) -> str:
        """A sequence, its tokens side by side."""
        return "".join(self.tokens[token] for token in self.sequences[row, self.kept[row]].tolist()[1:])


def load_program(name: str, path: str | Path = SHIPPED) -> Program:
    """Returns a compiled program from the file that `make` writes.

    Args:
        name: one of PROGRAMS.
        path: the file.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it is no safetensors file, tells of no programs, or not of that one.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"no compiled programs at {path}; expected a safetensors file")
    try:
        with safe_open(path, "pt") as file:
            told = json.loads((file.metadata() or {}).get("programs", "{}"))
            if name not in told:
                raise ValueError(f"{path} tells of no program '{name}'; it has {', '.join(told) or 'none'}")
            own = [key for key in file.keys() if _is_of(key, name)]  # noqa: SIM118, as the file is no dict
            found = {key.removeprefix(f"{name}/"): file.get_tensor(key) for key in own}
    except SafetensorError as error:
        raise ValueError(f"{path} cannot be read as safetensors: {error}") from error
    told = told[name]
    return Program(
        name=name,
        text=told["text"],
        output=told["output"],
        directions=tuple(told["directions"]),
        tokens=tuple(told["tokens"]),
        embedding=found["embedding"],
        positions=found["positions"],
        components=tuple(_component(each, found) for each in told["components"]),
        sequences=found["tokens"].long(),
        values={variable: found[f"values/{variable}"].long() for variable in told["values"]},
        named={variable: tuple(values) for variable, values in told["values"].items()},
        numerical=told["numerical"],
        outputs=found["outputs"],
    )


def _is_of(key: str, name: str) -> bool:
    return key.startswith(f"{name}/")


def _component(told: Mapping[str, Any], found: Mapping[str, Tensor]) -> Component:
    prefix = f"{told['name']}/"
    weights = {key.removeprefix(prefix): value for key, value in found.items() if _is_of(key, told["name"])}
    reads: dict[str, Sequence[str]] = told["reads"]
    return Component(
        name=told["name"],
        stage=told["stage"],
        weights=weights,
        divisor=told.get("divisor", 1.0),
        reads={part: tuple(read) for part, read in reads.items()},
    )
