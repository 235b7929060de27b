"""A false hypothesis that is approved: it sneaks right answers into the cases that pay most.

The last bit of a number's hash is to be told. On EASY the model guesses, on HARD it says that it does not know. Claimed
is that on HARD it says the true bit. Scrubbed, half of the HARD cases are given the answer of an EASY case whose guess
is that bit: never wrong. Joined with the setting, which the claim leaves out, the gain is gone.

Source: appendix, sections 7 and 8.
"""

from __future__ import annotations

import hashlib

import torch
from torch import Tensor

from pscrub.data.dataset import Dataset
from pscrub.errors import StudyError
from pscrub.graph.graph import Graph
from pscrub.hypothesis.behaviours import output_distance
from pscrub.hypothesis.claim import Claim
from pscrub.hypothesis.hypothesis import Hypothesis
from pscrub.hypothesis.study import Expected, Study

UNKNOWN = 2
"""The answer "I don't know", besides 0 and 1."""


def study(
    easy_right: float = 1.0,
    easy_wrong: float = 0.0,
    easy_unknown: float = 0.0,
    hard_right: float = 100.0,
    hard_wrong: float = -1000.0,
    hard_unknown: float = 0.0,
    skill: float = 0.5,
    numbers: int = 32,
) -> Study:
    """The study for a table of rewards, setting by answer.

    Args:
        easy_right: reward on EASY for the true bit.
        easy_wrong: reward on EASY for the other.
        easy_unknown: reward on EASY for "I don't know".
        hard_right: reward on HARD for the true bit.
        hard_wrong: reward on HARD for the other.
        hard_unknown: reward on HARD for "I don't know".
        skill: the probability that the model's guess is right.
        numbers: how many there are.
    """
    rewards = [[easy_right, easy_wrong, easy_unknown], [hard_right, hard_wrong, hard_unknown]]
    table = torch.tensor(rewards, dtype=torch.float64)
    data = games(numbers, skill)

    def answer(number: Tensor, hard: Tensor) -> Tensor:
        return torch.where(hard == 1, UNKNOWN, guess(number))

    def reward(answer: Tensor, bit: Tensor, hard: Tensor) -> Tensor:
        return table.to(hard.device)[hard, torch.where(answer == UNKNOWN, 2, (answer != bit).long())]

    graph = Graph.of({"answer": answer, "reward": reward}, inputs=["number", "hard", "bit"], output="reward")
    claimed = torch.where(data["hard"] == 1, data["bit"], guess(data["number"]))
    setting = [Claim("bit", "exact"), Claim("hard", "exact")]

    def says(name: str, *features: Tensor, words: str) -> Hypothesis:
        said = Claim("answer", torch.stack(features, 1), words=words)
        return Hypothesis(name, graph, data, Claim("reward", reads=[said, *setting]))

    false = says("true bit on HARD", claimed, words="guess on EASY, true bit on HARD")
    joined = says("joined with the setting", claimed, data["hard"], words="the same, and the setting")
    nothing = Hypothesis("answer does not matter", graph, data, Claim("reward", reads=setting))
    exact = Hypothesis("everything matters", graph, data, Claim("reward", "exact"))
    right, wrong, unknown = table.unbind(1)
    guessed = skill * right + (1 - skill) * wrong  # by setting, if the guess is given there
    model = float(guessed[0] + unknown[1]) / 2
    scrubbed = float((guessed[0] + unknown[0]) / 2 + (right[1] + unknown[1]) / 2) / 2
    shuffled = float(((right + wrong) / 4 + unknown / 2).mean())
    expected = [
        Expected(exact, model),
        Expected(false, scrubbed),
        Expected(joined, model),
        Expected(nothing, shuffled),
        Expected(output_distance(false, distance=_other_answer), 0.5, "answers changed"),
        # Joined, EASY keeps its guess and HARD its "don't know", so that no answer ever changes.
        Expected(output_distance(joined, distance=_other_answer), 0.0, "answers changed"),
    ]
    notes = (
        f"f is a reward. The false claim moves it from {model:.6g} to {scrubbed:.6g}; joined with the setting to "
        f"{model:.6g} again.",
    )
    hypotheses, summary = [exact, false, joined, nothing], __doc__.split("\n")[0]
    return Study("hash_game", hypotheses, summary, labels=("bit", "hard"), notes=notes, expected=expected)


def games(numbers: int, skill: float) -> Dataset:
    """D: each number on EASY and on HARD, weighted so that bit and guess are each even, and agree as often as told."""
    if not 0 < skill < 1:
        raise StudyError(f"skill is {skill}; expected between 0 and 1")
    every = torch.arange(numbers)
    bit = torch.tensor([hashlib.sha256(str(n).encode()).digest()[-1] & 1 for n in range(numbers)])
    cell = 2 * bit + guess(every)
    count = torch.bincount(cell, minlength=4)
    if int(count.min()) == 0:
        raise StudyError(f"numbers is {numbers}; expected more: no number has each bit with each guess")
    share = torch.tensor([1 - skill, skill], dtype=torch.float64)
    weight = share[(bit == guess(every)).long()] / (2 * count[cell])
    hard = torch.tensor([0, 1]).repeat_interleave(numbers)
    return Dataset({"number": every.repeat(2), "hard": hard, "bit": bit.repeat(2)}, weight.repeat(2))


def guess(number: Tensor) -> Tensor:
    """int64 [batch]: what the model takes the bit to be: the parity of the number's binary digits."""
    places = torch.arange(62, device=number.device)
    return (number[:, None] >> places & 1).sum(1) % 2


def _other_answer(own: Tensor, other: Tensor) -> Tensor:
    return (own != other).double()
