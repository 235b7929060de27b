"""Trains the shipped model of the largest of four numbers, on half of all sequences: a minute on one thread.

OMP_NUM_THREADS=1 python -m pscrub.studies.max_of_k.train --out weights.safetensors --seed 0
python -m pscrub.studies.max_of_k.train --check weights.safetensors
"""

import argparse
import os
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import torch
from safetensors.torch import save as serialise
from torch import Tensor
from torch.nn.functional import cross_entropy

from pscrub.records import write_whole
from pscrub.studies.max_of_k.model import MaxOfK, all_sequences, load_max_model

RATE, WEIGHT_DECAY, STEPS, HALVES_SEED = 3e-3, 1.0, 6_000, 0


def split_sequences() -> dict[str, Tensor]:
    """Returns int64 rows of `all_sequences`: "trained" and "held out", half of them each.

    The first sequence is trained on: only of 0, 0, 0, 0 is the largest 0.

    >>> [len(rows) for rows in split_sequences().values()]
    [648, 648]
    """
    others = 1 + torch.randperm(len(all_sequences()) - 1, generator=torch.Generator().manual_seed(HALVES_SEED))
    order = torch.cat([torch.zeros(1, dtype=torch.int64), others])
    return dict(zip(("trained", "held out"), order.chunk(2), strict=True))


def train_max(steps: int, seed: int) -> MaxOfK:
    """Returns the trained model: AdamW, full batches, the rate falling to nothing."""
    model, rows = MaxOfK(seed), split_sequences()["trained"]
    numbers = all_sequences()[rows]
    right = numbers.amax(1)
    optimizer = torch.optim.AdamW(model.parameters(), lr=RATE, weight_decay=WEIGHT_DECAY)
    falling = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    began = time.monotonic()
    for step in range(1, steps + 1):
        loss = cross_entropy(model(numbers), right)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        falling.step()
        if step % 1_000 == 0:
            sys.stderr.write(f"step {step}: loss {loss.item():.2e}, {time.monotonic() - began:.0f} s\n")
    return model.eval()


@torch.no_grad()
def tell_max_scores(model: MaxOfK) -> Iterator[str]:
    """Returns the lines of a table of the model's scores, each with its newline."""
    yield f"{'sequences':12}{'number':>8}{'loss':>12}{'accuracy':>11}\n"
    for name, rows in split_sequences().items():
        numbers = all_sequences()[rows]
        logits, right = model(numbers).double(), numbers.amax(1)
        accuracy = (logits.argmax(1) == right).double().mean()
        yield f"{name:12}{len(rows):8}{cross_entropy(logits, right):12.3e}{accuracy:11.4f}\n"


def main() -> None:
    """Returns nothing: trains or checks a model, and prints its scores."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    task = parser.add_mutually_exclusive_group(required=True)
    task.add_argument("--out", type=Path, help="train, and write the weights here (safetensors, replaced if there)")
    task.add_argument("--check", type=Path, metavar="FILE", help="train nothing, print the scores of these weights")
    parser.add_argument("--steps", type=int, default=STEPS, help="full batches (default %(default)s)")
    parser.add_argument("--seed", type=int, default=0, help="of the initial weights (default 0)")
    options = parser.parse_args()
    if options.steps < 1:
        parser.error(f"--steps is {options.steps}; expected 1 or more")
    if options.out and (options.out.is_dir() or not os.access(options.out.parent, os.W_OK)):
        parser.error(f"{options.out} cannot be written: it is a folder, or its folder is missing or not writable")
    try:
        if options.check:
            model = load_max_model(options.check)
        else:
            model = train_max(options.steps, options.seed)
            content = serialise(model.state_dict())
            write_whole(options.out, lambda file: file.write(content))
    except (FileNotFoundError, ValueError) as error:
        parser.error(str(error))
    sys.stdout.writelines(tell_max_scores(model))


if __name__ == "__main__":
    main()
