"""Trains the shipped bracket classifier from scratch, on strings it generates itself.

    python -m pscrub.studies.brackets.train --out weights.safetensors --steps 8000 --seed 0
    python -m pscrub.studies.brackets.train --check weights.safetensors

A hash holds out a quarter of the strings longer than 12: whatever its seed, training never sees one of them.
"""

import argparse
import hashlib
import math
import os
import sys
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from itertools import compress
from pathlib import Path
from random import Random

import torch
from safetensors.torch import save as serialise
from torch.nn import functional

from pscrub.studies.brackets.model import LONGEST, BracketClassifier, encode, is_balanced, load_classifier

BATCH, PEAK_RATE, WARMUP, SAVE_EVERY, HELD_OUT, HELD_OUT_SEED = 256, 2e-3, 200, 500, 20_000, 1_000_003
SEEN_BY_ALL = 12
FLIPPED = {"(": ")", ")": "("}
VERDICTS = {
    (True, True): "balanced",
    (False, True): "only count fails",
    (True, False): "only horizon fails",
    (False, False): "count and horizon fail",
}
OTHER_KINDS = ("starts with )", "odd length", f"longer than {SEEN_BY_ALL}")


def dyck_word(pairs: int, rng: Random) -> str:
    """Returns a balanced string of so many pairs, uniform among all of them.

    Cycle lemma: of the rotations of a word with one `)` too many exactly one is a balanced word followed by `)`, the
    one that starts behind the first lowest depth.
    """
    word = ["("] * pairs + [")"] * (pairs + 1)
    rng.shuffle(word)
    depth = lowest = start = 0
    for place, bracket in enumerate(word, start=1):
        depth += 1 if bracket == "(" else -1
        if depth < lowest:
            lowest, start = depth, place
    return "".join(word[start:] + word[:start])[:-1]


def walk_word(pairs: int, rng: Random) -> str:
    """Returns a balanced string of so many pairs, from flat to deeply nested: uniform ones are seldom either."""
    word, opened, depth, eagerness = "", 0, 0, rng.uniform(0.15, 0.85)
    while len(word) < 2 * pairs:
        opens = depth == 0 or (opened < pairs and rng.random() < eagerness)
        word += "(" if opens else ")"
        opened += opens
        depth += 1 if opens else -1
    return word


def _balanced(rng: Random, most: int = LONGEST // 2) -> str:
    return rng.choice((dyck_word, walk_word))(rng.randint(1, most), rng)


def _flipped(rng: Random) -> str:
    word = list(_balanced(rng))
    for _ in range(rng.choice((1, 1, 1, 2, 3))):
        place = rng.randrange(len(word))
        word[place] = FLIPPED[word[place]]
    return "".join(word)


def _swapped(rng: Random) -> str:
    """One or two of its `(` changed places with a later `)`: right count, horizon often failing."""
    word = list(_balanced(rng))
    for _ in range(rng.choice((1, 1, 2))):
        pairs = [(i, j) for i, a in enumerate(word) if a == "(" for j in range(i + 1, len(word)) if word[j] == ")"]
        if pairs:
            i, j = rng.choice(pairs)
            word[i], word[j] = word[j], word[i]
    return "".join(word)


def _rotated(rng: Random) -> str:
    word = _balanced(rng)
    place = rng.randrange(len(word))
    return word[place:] + word[:place]


def _lengthened_or_shortened(rng: Random) -> str:
    word = _balanced(rng)
    place = rng.randrange(len(word))
    if len(word) > 2 and (len(word) == LONGEST or rng.random() < 0.5):
        return word[:place] + word[place + 1 :]
    return word[:place] + rng.choice("()") + word[place:]


def _surplus_closed(rng: Random) -> str:
    """Wrong count with a holding horizon: balanced, then some of its `(` turned or some `)` put in front."""
    word = _balanced(rng, LONGEST // 2 - 2)
    return ")" * rng.choice((1, 2, 2, 3, 4)) + word if rng.random() < 0.5 else word.replace("(", ")", rng.randint(1, 4))


def _wrapped_inside_out(rng: Random) -> str:
    return f"){_balanced(rng, LONGEST // 2 - 1)}("


def _coins(rng: Random) -> str:
    length = 2 * rng.randint(1, LONGEST // 2) - (rng.random() < 0.2)
    share = rng.choice((0.5, 0.5, rng.uniform(0.2, 0.8)))
    return "".join("(" if rng.random() < share else ")" for _ in range(max(2, length)))


def _shuffled(rng: Random) -> str:
    word = list(_balanced(rng))
    rng.shuffle(word)
    return "".join(word)


RECIPES: dict[Callable[[Random], str], float] = {
    _balanced: 0.30,
    _flipped: 0.14,
    _swapped: 0.20,
    _rotated: 0.07,
    _lengthened_or_shortened: 0.06,
    _surplus_closed: 0.05,
    _wrapped_inside_out: 0.03,
    _coins: 0.10,
    _shuffled: 0.05,
}


def is_held_out(string: str) -> bool:
    """Returns whether training never sees the string: a quarter of those longer than 12, by their hash."""
    return len(string) > SEEN_BY_ALL and hashlib.blake2b(string.encode(), digest_size=1).digest()[0] < 64


def generate(n: int, seed: int, *, training: bool = False) -> list[str]:
    """Returns n bracket strings of length 2 to 40, about two in five balanced, the rest near misses and random ones.

    Independent draws, so that short strings repeat. Those longer than 12 are held-out strings, or with ``training``
    none of them is; the shorter ones are too few to be split and are common to both.

    >>> generate(3, seed=0) == generate(3, seed=0)
    True
    """
    rng = Random(seed)
    recipes, weights = list(RECIPES), list(RECIPES.values())
    strings: list[str] = []
    while len(strings) < n:
        string = rng.choices(recipes, weights)[0](rng)
        # The shorter ones are thinned alike, or refusing long ones would make them too frequent.
        wanted = is_held_out(string) != training if len(string) > SEEN_BY_ALL else rng.random() < (0.25, 0.75)[training]
        if wanted:
            strings.append(string)
    return strings


def kinds(string: str) -> list[str]:
    """Returns the names of the groups a string is counted in: one of four verdicts, then overlapping ones.

    >>> kinds(")((")
    ['count and horizon fail', 'starts with )', 'odd length']
    """
    depth = highest = 0
    for bracket in reversed(string):
        depth += 1 if bracket == "(" else -1
        highest = max(highest, depth)
    others = (string.startswith(")"), len(string) % 2 == 1, len(string) > SEEN_BY_ALL)
    return [VERDICTS[depth == 0, highest <= 0], *compress(OTHER_KINDS, others)]


@dataclass(frozen=True)
class Score:
    """Mean cross entropy in nats and share of right decisions over some strings."""

    strings: int
    loss: float
    accuracy: float


def evaluate(model: BracketClassifier, strings: list[str]) -> dict[str, Score]:
    """Returns the scores of the model, by kind of string and in "all"."""
    losses: list[float] = []
    right: list[bool] = []
    with torch.no_grad():
        for first in range(0, len(strings), 2_000):
            tokens = encode(strings[first : first + 2_000])
            logits, labels = model(tokens), is_balanced(tokens).long()
            losses += functional.cross_entropy(logits.double(), labels, reduction="none").tolist()
            right += (logits.argmax(1) == labels).tolist()
    rows: dict[str, list[int]] = {"all": list(range(len(strings)))}
    for row, string in enumerate(strings):
        for name in kinds(string):
            rows.setdefault(name, []).append(row)
    return {
        name: Score(len(at), math.fsum(losses[row] for row in at) / len(at), sum(right[row] for row in at) / len(at))
        for name in ("all", *VERDICTS.values(), *OTHER_KINDS)
        if (at := rows.get(name))
    }


def save_weights(model: BracketClassifier, path: Path) -> None:
    """Returns nothing: writes the weights under a temporary name beside `path` and moves them there, whole or not."""
    scratch = path.with_name(f"{path.name}.{os.getpid()}.part")
    try:
        scratch.write_bytes(serialise(model.state_dict()))
        os.replace(scratch, path)
    finally:
        scratch.unlink(missing_ok=True)


def learning_rate(step: int, steps: int) -> float:
    """Returns the learning rate of a step: a linear rise, then half a cosine down to nearly 0."""
    rise = min(WARMUP, max(1, steps // 10))
    if step < rise:
        return PEAK_RATE * (step + 1) / rise
    return PEAK_RATE * (0.002 + 0.998 * 0.5 * (1 + math.cos(math.pi * (step - rise) / max(1, steps - rise))))


def train(out: Path, steps: int, seed: int) -> BracketClassifier:
    """Returns the trained classifier, saved at `out` on the way, at the end and on an interrupt."""
    model = BracketClassifier(seed)
    optimizer = torch.optim.AdamW(model.parameters(), betas=(0.9, 0.98), weight_decay=0.01)
    chunk: list[str] = []
    began, recent = time.monotonic(), 0.0
    try:
        for step in range(steps):
            if not chunk:
                chunk = generate(50 * BATCH, seed * 1_000_000 + step, training=True)
            batch, chunk = chunk[:BATCH], chunk[BATCH:]
            tokens = encode(batch)[:, : max(map(len, batch)) + 2]
            for group in optimizer.param_groups:
                group["lr"] = learning_rate(step, steps)
            loss = functional.cross_entropy(model(tokens), is_balanced(tokens).long())
            optimizer.zero_grad()
            loss.backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            recent = 0.98 * recent + 0.02 * loss.item() if step else loss.item()
            if (step + 1) % 100 == 0:
                seconds = time.monotonic() - began
                sys.stderr.write(f"step {step + 1} of {steps}: loss {recent:.5f}, {seconds:.0f} s\n")
            if (step + 1) % SAVE_EVERY == 0:
                save_weights(model, out)
    except KeyboardInterrupt:
        sys.stderr.write(f"interrupted: the weights so far go to {out}\n")
    save_weights(model, out)
    return model.eval()


def table_of_scores(scores: dict[str, Score]) -> Iterable[str]:
    """Returns the lines of a table of scores, each with its newline."""
    yield f"{'held-out strings':24}{'number':>8}{'loss':>11}{'accuracy':>11}\n"
    for name, score in scores.items():
        yield f"{name:24}{score.strings:8}{score.loss:11.6f}{score.accuracy:11.3%}\n"


def main() -> None:
    """Returns nothing: trains or checks a classifier, and prints its held-out scores."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    task = parser.add_mutually_exclusive_group(required=True)
    task.add_argument("--out", type=Path, help="train, and write the weights here (safetensors, replaced if there)")
    task.add_argument("--check", type=Path, metavar="FILE", help="train nothing, print the scores of these weights")
    parser.add_argument("--steps", type=int, default=8000, help="optimiser steps of 256 strings (default 8000)")
    parser.add_argument("--seed", type=int, default=0, help="of the initial weights and the strings (default 0)")
    parser.add_argument("--held-out", type=int, default=HELD_OUT, metavar="N", help=f"strings scored ({HELD_OUT})")
    options = parser.parse_args()
    if options.steps < 1 or options.held_out < 1:
        parser.error("--steps and --held-out are counts of at least 1")
    if options.out and (options.out.is_dir() or not os.access(options.out.parent, os.W_OK)):
        parser.error(f"{options.out} cannot be written: it is a folder, or its folder is missing or not writable")
    # This process is the script's own, and so small a model is slower on several threads.
    torch.set_num_threads(1)  # noqa: TID251
    try:
        model = load_classifier(options.check) if options.check else train(options.out, options.steps, options.seed)
    except (FileNotFoundError, ValueError) as error:
        parser.error(str(error))
    sys.stdout.writelines(table_of_scores(evaluate(model, generate(options.held_out, HELD_OUT_SEED))))


if __name__ == "__main__":
    main()
