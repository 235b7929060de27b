"""Where do induction heads of SmolLM2-135M take their keys, queries and values from? Heads found, edges resampled.

Heads are found by where they attend, on rows that are not scored. What previous-token heads (and as many random ones)
add to the residual stream is exchanged between rows for one reader alone, the keys, the queries or the values of the
induction heads, at exact positions, by the edge or by every path; what these heads write at the end is computed anew,
and all that follows from it. All else is the row's own.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from pscrub.data.dataset import Dataset
from pscrub.errors import StudyError
from pscrub.graph.graph import Node
from pscrub.graph.opening import open_decoder
from pscrub.hypothesis.circuits import circuit_ladder
from pscrub.hypothesis.hypothesis import Hypothesis
from pscrub.hypothesis.study import Study
from pscrub.studies.induction.rows import HALVES, MATCH, PERIOD
from pscrub.studies.smollm2 import load_smollm2
from pscrub.studies.weights import permute_weights

MODELS = ("trained", "shuffled")
SELECTED, SCORED = 48, 96
"""Rows that tell the heads, and rows that are scored."""
DRAWS = 128
POOL, SPOKEN = 1_000, 24
"""Random tokens are of so many, the three about the match of so many of these."""
BACK, AHEAD = 0.3, 0.3
"""From what mean share of its attention on a head is said to attend to the token before, and to the match."""
AT_ONCE = 16
LAST = Node("last logits", ("logits",), lambda logits: logits[:, -1])
LOSS = Node("loss", (LAST.name, "target"), lambda last, label: cross_entropy(last, label, reduction="none"))
Head = tuple[int, int]

CLAIM = """
name induction = {induction}
name {part} = {parts}
name sources = {sources}
logits@END      <= induction@END
{part}@{at}     {arrow} sources@{at}
sources@{at}    : {feature}
"""
UNIMPORTANT = "loss <- target \n target : target \n loss : rest=unimportant"
PARTS = {"K": ("keys", "k", "match"), "Q": ("queries", "q", "END"), "V": ("values", "v", "match")}
"""Letter -> the readers' name, part and place: keys and values at the match, queries at the end."""
ARROWS = {"": "<-", " by every path": "<="}


@dataclass(frozen=True)
class Composing:
    """Heads by where they attend, the most attentive first.

    Args:
        previous: from the match to the token before it, below an induction head.
        induction: from the last token to the match, above the lowest previous-token head.
        others: of neither kind, in any layer.
    """

    previous: tuple[Head, ...]
    induction: tuple[Head, ...]
    others: tuple[Head, ...]

    @property
    def below(self) -> tuple[Head, ...]:
        """Others that are below all induction heads, as previous-token heads are."""
        lowest = min((layer for layer, _ in self.induction), default=0)
        return tuple(head for head in self.others if head[0] < lowest)

    @property
    def beside(self) -> tuple[Head, ...]:
        """Others of the layers from the lowest induction head to the highest."""
        layers = [layer for layer, _ in self.induction] or [0]
        return tuple(head for head in self.others if min(layers) <= head[0] <= max(layers))

    def random(self, seed: int) -> tuple[tuple[Head, ...], tuple[Head, ...]]:
        """As many others as there are previous-token heads, from `below`, and as induction heads, from `beside`."""
        generator, found = torch.Generator().manual_seed(seed), []
        for pool, heads in ((self.below, self.previous), (self.beside, self.induction)):
            order = torch.randperm(len(pool), generator=generator)[: len(heads)]
            found.append(tuple(pool[each] for each in order.tolist()))
        return found[0], found[1]


def study(model: str = "trained", rows: int = SCORED, seed: int = 0) -> Study:
    """The study on SmolLM2-135M, or on a control that has learnt nothing.

    Args:
        model: "trained", or "shuffled": the entries of each matrix permuted after heads are found.
        rows: how many to score on.
        seed: of random heads, shuffled features, permuted weights.

    Raises:
        StudyError: the model is not installed (says how to install it) or unknown, too few rows, no heads of a kind.
    """
    faults = [] if model in MODELS else [f"model is '{model}'; expected one of {', '.join(MODELS)}"]
    faults += [] if rows > 1 else [f"rows is {rows}; expected at least 2"]
    if faults:
        raise StudyError(faults)
    subject = load_smollm2()
    vocabulary = subject.get_input_embeddings().num_embeddings  # type: ignore[operator]
    found = find_composing(subject, make_rows("selection", SELECTED, vocabulary)["input_ids"])
    if model == "shuffled":
        permute_weights(subject, seed)
    return build_composed(subject, make_rows("scoring", rows, vocabulary), found, seed)


def build_composed(subject: nn.Module, data: Dataset, found: Composing, seed: int = 0) -> Study:
    """The study of a Llama on D, with the heads that were found on other rows.

    Args:
        subject: the model.
        data: D, as `make_rows` makes it.
        found: of the selection half.
        seed: of the controls.
    """
    random, ends = found.random(seed)
    notes = (
        f"Found on {SELECTED} other rows: previous-token heads {_listed(found.previous)}; induction heads "
        f"{_listed(found.induction)}; random ones {_listed(random)}, and at the end {_listed(ends)}.",
    )
    rows = compose(subject, data, found, seed)
    return Study("induction_smollm2", rows, __doc__.split("\n")[0], ("target",), notes, by=("target",), draws=DRAWS)


def compose(subject: nn.Module, data: Dataset, found: Composing, seed: int) -> list[Hypothesis]:
    """The ladder, all on one graph."""
    decoder = open_decoder(subject, data, tell=None)
    order = torch.randperm(data.n, generator=torch.Generator().manual_seed(seed))
    features = {"token before": data["query"], "own token": data["target"], "shuffled": data["query"][order]}

    def say(letter: str, sources: Sequence[Head], feature: str = "anything", arrow: str = "<-") -> str:
        name, part, at = PARTS[letter]
        group = 1 if part == "q" else decoder.group
        readers = dict.fromkeys((layer, head // group) for layer, head in found.induction)
        mark = "g" if group > 1 else ""
        words = {
            "induction": " ".join(f"{layer}.{head}" for layer, head in found.induction),
            "parts": " ".join(f"{layer}.{mark}{number}.{part}" for layer, number in readers),
            "sources": " ".join(f"{layer}.{head}" for layer, head in sources),
        }
        return CLAIM.format(part=name, at=at, feature=feature, arrow=arrow, **words)

    def end(heads: Sequence[Head], arrow: str = "<=") -> str:
        at_end = " ".join(f"{layer}.{head}@END" for layer, head in heads)
        return f"logits@END {arrow} {at_end} \n {at_end} : anything"

    random, ends = found.random(seed)
    texts = {
        "0a everything exact": "loss : exact",
        "0b logits unimportant": UNIMPORTANT,
        "0c induction heads, resampled": end(found.induction),
        "0d random heads, resampled": end(ends),
        "0e as 0c, for the logits alone": end(found.induction, "<-"),
    }
    for number, (letter, (name, _, at)) in enumerate(PARTS.items(), 1):
        whole = [line for line in say(letter, random).split("\n") if "sources" not in line]
        texts[f"{number}a {letter}, resampled"] = "\n".join([*whole, f"{name}@{at} : anything"])
        for row, (words, arrow) in zip(("bc", "de"), ARROWS.items(), strict=True):
            texts[f"{number}{row[0]} {letter} from previous-token heads{words}"] = say(
                letter, found.previous, arrow=arrow
            )
            texts[f"{number}{row[1]} {letter} from random heads{words}"] = say(letter, random, arrow=arrow)
    texts["4a as 1d, knowing the token before"] = say("K", found.previous, "token before", "<=")
    texts["4b as 1d, knowing their own token"] = say("K", found.previous, "own token", "<=")
    texts["4c as 4a, shuffled"] = say("K", found.previous, "shuffled", "<=")
    return circuit_ladder(
        texts, decoder, behaviour=(LAST, LOSS), positions={"match": MATCH}, features=features, rest="exact"
    )


def make_rows(half: str, count: int, vocabulary: int) -> Dataset:
    """D: columns input_ids int64 [count, 31], 20 random tokens that differ and the first 11 again; query and target.

    The query stands 20 places before the last token too; the target stood after it. Tokens are of POOL that are drawn
    from the vocabulary once, those before, at and after the match of SPOKEN of these, the same in both halves.
    """
    shared, own = (torch.Generator().manual_seed(seed) for seed in (7, 11 + HALVES.index(half)))
    pool = torch.randperm(vocabulary, generator=shared)[:POOL]
    few, rest = pool[:SPOKEN], pool[SPOKEN:]
    about = few[torch.rand(count, len(few), generator=own).argsort(1)[:, :3]]
    others = rest[torch.rand(count, len(rest), generator=own).argsort(1)[:, : PERIOD - 3]]
    first = torch.cat([others[:, : MATCH - 2], about, others[:, MATCH - 2 :]], 1)
    ids = torch.cat([first, first[:, :MATCH]], 1)
    return Dataset({"input_ids": ids, "query": ids[:, -1], "target": ids[:, MATCH]})


@torch.no_grad()
def measure_shares(model: Any, ids: Tensor) -> tuple[Tensor, Tensor]:
    """Mean shares of attention [layers, heads] over rows int64 [N, 31]: from the match to the token before, from the
    last token to the match. The model, a Llama, is left as it was.
    """
    kind, sums = model.config._attn_implementation, []
    model.set_attn_implementation("eager")  # which alone gives patterns
    try:
        for rows in ids.split(AT_ONCE):
            patterns = model.model(input_ids=rows, use_cache=False, output_attentions=True).attentions
            places = [(each[:, :, MATCH, MATCH - 1], each[:, :, -1, MATCH]) for each in patterns]
            sums.append(torch.stack([torch.stack(each).double().sum(1) for each in places]))
    finally:
        model.set_attn_implementation(kind)
    before, match = (torch.stack(sums).sum(0) / len(ids)).unbind(1)
    return before, match


def find_composing(model: Any, ids: Tensor) -> Composing:
    """Heads of a Llama by where they attend over rows int64 [N, 31], by BACK and AHEAD; the model is left as it was.

    Raises:
        StudyError: there are none of a kind, or too few others.
    """
    before, match = measure_shares(model, ids)
    back, ahead = _over(before, BACK), _over(match, AHEAD)
    lowest = min((layer for layer, _ in back), default=len(before))
    induction = tuple(head for head in ahead if head[0] > lowest)
    lowest = min((layer for layer, _ in induction), default=0)
    previous = tuple(head for head in back if head[0] < lowest)
    taken = {*back, *ahead}
    every = [(layer, head) for layer in range(len(before)) for head in range(before.shape[1])]
    found = Composing(previous, induction, tuple(head for head in every if head not in taken))
    if not previous or not induction or len(found.below) < len(previous) or len(found.beside) < len(induction):
        raise StudyError(
            f"previous-token heads {_listed(previous)}, induction heads {_listed(induction)}, {len(found.below)} "
            f"others below and {len(found.beside)} beside: expected some of each, and as many others there; heads do "
            "not attend so with these weights"
        )
    return found


def _over(shares: Tensor, mark: float) -> tuple[Head, ...]:
    """Heads of shares [layers, heads] over a mark, the largest first."""
    order = shares.flatten().argsort(descending=True, stable=True).tolist()
    heads = (divmod(each, shares.shape[1]) for each in order)
    return tuple(head for head in heads if shares[head] > mark)


def _listed(heads: Sequence[Head]) -> str:
    return ", ".join(f"{layer}.{head}" for layer, head in heads) or "none"
