"""Trains the shipped model of addition modulo 113 from scratch, on 30 % of the pairs.

    python -m pscrub.studies.modular_addition.train --out weights.safetensors --seed 0
    python -m pscrub.studies.modular_addition.train --check weights.safetensors

Full batches at a constant learning rate until the model generalises, then the rate falls to nearly 0. It generalises
thousands of steps after it has learnt the training pairs. When it has is read off 1,000 held-out pairs, and scores are
those of the 7,939 others, which nothing looks at. A run that was cut off goes on from its checkpoint, OUT.checkpoint.
"""

import argparse
import math
import os
import sys
import time
from collections.abc import Iterable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch
from safetensors.torch import save as serialise
from torch import Tensor
from torch.nn import functional

from pscrub.records import write_whole
from pscrub.studies.modular_addition.model import (
    D_HEAD,
    D_MODEL,
    EQUALS,
    HEADS,
    ModularAddition,
    P,
    all_pairs,
    load_model,
    sums,
)

RATE, WARMUP, WEIGHT_DECAY, BETAS, WATCH_EVERY = 1e-3, 10, 1.0, (0.9, 0.98), 100
TRAINED_SHARE, WATCHED, PAIRS_SEED = 0.3, 1_000, 0
GENERALISES, IN_A_ROW = 2e-3, 4


def split_pairs() -> dict[str, Tensor]:
    """Returns int64 rows of `all_pairs` by what they are for: "trained", "watched" and "held out".

    >>> [len(rows) for rows in split_pairs().values()]
    [3830, 1000, 7939]
    """
    order = torch.randperm(P * P, generator=torch.Generator().manual_seed(PAIRS_SEED))
    trained = int(TRAINED_SHARE * P * P)
    sizes = [trained, WATCHED, P * P - trained - WATCHED]
    return dict(zip(("trained", "watched", "held out"), order.split(sizes), strict=True))


def fast_logits(model: ModularAddition, tokens: Tensor) -> Tensor:
    """Returns the model's logits from tables of what each token at each place sends to "=", several times faster."""
    attention, positions, embedded = model.blocks[0].get_submodule("attn"), model.pos_embed.W_pos, model.embed.W_E
    query_weights, key_weights, value_weights, out_weights = attention.parameters()
    at_equals = embedded[EQUALS] + positions[2]
    table = torch.cat([embedded[:P] + positions[0], embedded[:P] + positions[1], at_equals[None]])
    query = torch.einsum("d,hde->he", at_equals, query_weights)
    scores = table @ torch.einsum("hde,he->dh", key_weights, query) / math.sqrt(D_HEAD)
    sent = table @ (value_weights @ out_weights).transpose(0, 1).reshape(D_MODEL, HEADS * D_MODEL)
    places = tokens + torch.tensor([0, P, 2 * P - EQUALS])
    pattern = scores[places].softmax(1)
    middle = at_equals
    for place in range(3):
        heads = functional.embedding(places[:, place], sent).view(-1, HEADS, D_MODEL)
        middle = middle + (pattern[:, place, :, None] * heads).sum(1)
    logits: Tensor = model.unembed(middle + model.blocks[0].get_submodule("mlp")(middle))
    return logits


@dataclass(frozen=True)
class Score:
    """Mean cross entropy in nats and share of right answers over some pairs."""

    pairs: int
    loss: float
    accuracy: float


@torch.no_grad()
def score(model: ModularAddition, tokens: Tensor) -> Score:
    """Returns the model's score over tokens int64[row, 3], the loss in float64."""
    logits, right = model(tokens).double(), sums(tokens)
    loss = functional.cross_entropy(logits, right).item()
    return Score(len(tokens), loss, (logits.argmax(1) == right).double().mean().item())


def rate_of_step(step: int, settles_from: int | None, settle: int) -> float:
    """Returns the rate of a step: a short rise, constant until `settles_from`, then half a cosine to a thousandth."""
    if settles_from is None or step < settles_from:
        return RATE * min(1.0, (step + 1) / WARMUP)
    done = min(1.0, (step - settles_from) / settle)
    return RATE * (0.001 + 0.999 * 0.5 * (1 + math.cos(math.pi * done)))


def train_addition(out: Path, steps: int, settle: int, seed: int) -> ModularAddition:
    """Returns the trained model, its weights saved at `out` in float16 at the end."""
    model = ModularAddition(seed)
    optimizer = torch.optim.AdamW(model.parameters(), betas=BETAS, weight_decay=WEIGHT_DECAY)
    tokens, rows = all_pairs(), split_pairs()
    trained, watched = tokens[rows["trained"]], tokens[rows["watched"]]
    right = sums(trained)
    checkpoint = out.with_name(f"{out.name}.checkpoint")
    step, settles_from, good = 0, None, 0
    if checkpoint.is_file():
        kept = torch.load(checkpoint, weights_only=True)
        if kept["seed"] != seed:
            raise ValueError(f"{checkpoint} is of seed {kept['seed']}, not {seed}; remove it to begin anew")
        model.load_state_dict(kept["model"])
        optimizer.load_state_dict(kept["optimizer"])
        step, settles_from, good = kept["step"], kept["settles_from"], kept["good"]
    began, first = time.monotonic(), step
    while settles_from is None or step < settles_from + settle:
        for group in optimizer.param_groups:
            group["lr"] = rate_of_step(step, settles_from, settle)
        # In float32 the loss of pairs long learnt would round to 0.
        loss = functional.cross_entropy(fast_logits(model, trained).double(), right)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        step += 1
        if step % WATCH_EVERY == 0:
            seen = score(model, watched)
            good = good + 1 if seen.loss < GENERALISES and seen.accuracy == 1 else 0
            if settles_from is None and (good >= IN_A_ROW or step >= steps - settle):
                settles_from = step
            seconds = (time.monotonic() - began) / (step - first)
            sys.stderr.write(
                f"step {step}: loss {loss.item():.2e}; watched pairs {seen.loss:.2e}, {seen.accuracy:.2%} right; "
                f"{'constant rate' if settles_from is None else 'settling'}, {seconds:.3f} s a step\n"
            )
            kept = {"model": model.state_dict(), "optimizer": optimizer.state_dict(), "seed": seed}
            kept |= {"step": step, "settles_from": settles_from, "good": good}
            write_whole(checkpoint, partial(torch.save, kept))
    weights = serialise({name: value.half() for name, value in model.state_dict().items()})
    write_whole(out, lambda file: file.write(weights))
    checkpoint.unlink(missing_ok=True)
    return load_model(out)


def tell_scores(model: ModularAddition) -> Iterable[str]:
    """Returns the lines of a table of the model's scores, each with its newline."""
    yield f"{'pairs':12}{'number':>8}{'loss':>12}{'accuracy':>11}\n"
    for name, rows in split_pairs().items():
        found = score(model, all_pairs()[rows])
        yield f"{name:12}{found.pairs:8}{found.loss:12.3e}{found.accuracy:11.4f}\n"


def main() -> None:
    """Returns nothing: trains or checks a model, and prints its scores."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    task = parser.add_mutually_exclusive_group(required=True)
    task.add_argument("--out", type=Path, help="train, and write the weights here (safetensors, replaced if there)")
    task.add_argument("--check", type=Path, metavar="FILE", help="train nothing, print the scores of these weights")
    parser.add_argument("--steps", type=int, default=20_000, help="at most so many full batches (default 20000)")
    parser.add_argument("--settle", type=int, default=1_500, help="of them, with a falling rate (default 1500)")
    parser.add_argument("--seed", type=int, default=0, help="of the initial weights (default 0)")
    parser.add_argument("--threads", type=int, default=2, help="of torch (default 2)")
    options = parser.parse_args()
    if options.settle < 1 or options.steps < options.settle or options.threads < 1:
        parser.error("--steps, --settle and --threads are counts of at least 1, and --settle at most --steps")
    if options.out and (options.out.is_dir() or not os.access(options.out.parent, os.W_OK)):
        parser.error(f"{options.out} cannot be written: it is a folder, or its folder is missing or not writable")
    # This process is the script's own.
    torch.set_num_threads(options.threads)  # noqa: TID251
    try:
        if options.check:
            model = load_model(options.check)
        else:
            model = train_addition(options.out, options.steps, options.settle, options.seed)
    except (FileNotFoundError, ValueError) as error:
        parser.error(str(error))
    sys.stdout.writelines(tell_scores(model))


if __name__ == "__main__":
    main()
