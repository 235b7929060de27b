"""Trains the shipped induction model from scratch: half text, half repeats of random tokens.

    python -m pscrub.studies.induction.train --text kjv.txt --out weights.safetensors --tokens tokens.safetensors
    python -m pscrub.studies.induction.train --check weights.safetensors

Each row of a batch is 64 tokens, of the text from anywhere in the part that trains, or random tokens that repeat with a
period of 6 to 32. The rate rises over 200 steps and then falls in a straight line. Scores are of text held out, and of
repeats with a period of 32: what stands before the first repeat cannot be foretold, what stands behind it can.
"""

import argparse
import os
import sys
import time
from collections.abc import Iterable
from pathlib import Path

import torch
from safetensors.torch import save as serialise
from torch import Tensor
from torch.nn import functional

from pscrub.records import write_whole
from pscrub.studies.induction.model import D_HEAD, HEADS, LONGEST, VOCABULARY, Induction, load_induction
from pscrub.studies.induction.text import (
    SHIPPED_TEXT,
    clean_text,
    encode_text,
    learn_pairs,
    load_text,
    pack_text,
    split_text,
)

RATE, WARMUP, LAST, WEIGHT_DECAY, BETAS, WATCH_EVERY = 2e-3, 200, 0.02, 0.05, (0.9, 0.98), 250
ROWS, REPEATING, SHORTEST_PERIOD, LONGEST_PERIOD, SCORED = 32, 16, 6, 32, 256


def repeat_tokens(tokens: Tensor, periods: Tensor) -> Tensor:
    """Returns rows int64[row, 64] that repeat the beginnings of rows int64[row, at least period], periods int64[row].

    >>> repeat_tokens(torch.arange(4)[None], torch.tensor([3]))[0, :8].tolist()
    [0, 1, 2, 0, 1, 2, 0, 1]
    """
    return tokens.gather(1, torch.arange(LONGEST) % periods[:, None])


def draw_batch(text: Tensor, generator: torch.Generator) -> Tensor:
    """Returns tokens int64[32, 64]: 16 rows of random tokens that repeat, then 16 of the text int64[tokens]."""
    periods = torch.randint(SHORTEST_PERIOD, LONGEST_PERIOD + 1, (REPEATING,), generator=generator)
    tokens = torch.randint(VOCABULARY, (REPEATING, LONGEST_PERIOD), generator=generator)
    starts = torch.randint(len(text) - LONGEST, (ROWS - REPEATING, 1), generator=generator)
    return torch.cat([repeat_tokens(tokens, periods), text[starts + torch.arange(LONGEST)]])


def logits_at_once(model: Induction, tokens: Tensor) -> Tensor:
    """Returns the model's logits several times faster: what heads add is summed at once, and is nowhere apart."""
    stream, positions = model.embed(tokens), model.positions[: tokens.shape[1]]
    for block in model.blocks:
        normed, attention = block.get_submodule("ln1")(stream), block.get_submodule("attn")
        placed = normed + positions
        *weights, out = attention.parameters()
        query, key, value = (
            (read @ weight.transpose(0, 1).flatten(1)).unflatten(-1, (HEADS, D_HEAD)).transpose(1, 2)
            for read, weight in zip((placed, placed, normed), weights, strict=True)
        )
        heads = functional.scaled_dot_product_attention(query, key, value, is_causal=True)
        stream = stream + heads.transpose(1, 2).flatten(2) @ out.flatten(0, 1)
    logits: Tensor = model.unembed(model.ln_final(stream))
    return logits


@torch.no_grad()
def mean_losses(model: Induction, tokens: Tensor) -> dict[str, float]:
    """Returns the mean loss in nats, in float64, over the first and second half of rows int64[row, 64]."""
    logits = logits_at_once(model, tokens)[:, :-1].double()
    losses = functional.cross_entropy(logits.transpose(1, 2), tokens[:, 1:], reduction="none")
    return {"first": losses[:, : LONGEST // 2 - 1].mean().item(), "second": losses[:, LONGEST // 2 :].mean().item()}


def held_out_rows() -> dict[str, Tensor]:
    """Returns rows int64[256, 64] by what they are: text that is held out, and repeats of random tokens and of text."""
    chunks, _ = load_text()
    text = chunks.reshape(-1, LONGEST)[:: max(1, chunks.numel() // LONGEST // SCORED)][:SCORED]
    generator = torch.Generator().manual_seed(1)
    random = torch.randint(VOCABULARY, (SCORED, LONGEST), generator=generator)
    periods = torch.full((SCORED,), LONGEST_PERIOD)
    return {
        "text": text,
        "random tokens repeated": repeat_tokens(random, periods),
        "text repeated": repeat_tokens(text, periods),
    }


def train_induction(text: Tensor, out: Path, steps: int, seed: int) -> Induction:
    """Returns the model trained on a text int64[tokens], its weights saved at `out` in float16 at the end."""
    model, generator = Induction(seed), torch.Generator().manual_seed(seed)
    optimizer = torch.optim.AdamW(model.parameters(), betas=BETAS, weight_decay=WEIGHT_DECAY)
    began, watched = time.monotonic(), held_out_rows()
    for step in range(1, steps + 1):
        for group in optimizer.param_groups:
            group["lr"] = rate_at(step, steps)
        tokens = draw_batch(text, generator)
        loss = functional.cross_entropy(logits_at_once(model, tokens)[:, :-1].flatten(0, 1), tokens[:, 1:].flatten())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        if step % WATCH_EVERY == 0:
            seconds = (time.monotonic() - began) / step
            seen = {name: mean_losses(model, rows)["second"] for name, rows in watched.items()}
            said = ", ".join(f"{name} {found:.3f}" for name, found in seen.items())
            sys.stderr.write(f"step {step}: loss {loss.item():.3f}; second half: {said}; {seconds:.3f} s a step\n")
    weights = serialise({name: value.half() for name, value in model.state_dict().items()})
    write_whole(out, lambda file: file.write(weights))
    return load_induction(out)


def rate_at(step: int, steps: int) -> float:
    """Returns the rate of a step, counted from 1: a rise over 200, times a straight line down to a fiftieth."""
    return RATE * min(1.0, step / WARMUP) * (LAST + (1 - LAST) * (1 - step / steps))


def tell_mean_losses(model: Induction) -> Iterable[str]:
    """Returns the lines of a table of the model's losses, each with its newline."""
    yield f"{'rows':24}{'first half':>12}{'second half':>13}\n"
    for name, rows in held_out_rows().items():
        found = mean_losses(model, rows)
        yield f"{name:24}{found['first']:12.3f}{found['second']:13.3f}\n"


def main() -> None:
    """Returns nothing: trains or checks a model, and prints its scores."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    task = parser.add_mutually_exclusive_group(required=True)
    task.add_argument("--out", type=Path, help="train, and write the weights here (safetensors, replaced if there)")
    task.add_argument("--check", type=Path, metavar="FILE", help="train nothing, print the scores of these weights")
    parser.add_argument("--text", type=Path, help="what `bible` prints, to train on")
    parser.add_argument("--tokens", type=Path, help="write the text's vocabulary and what is held out here")
    parser.add_argument("--steps", type=int, default=9_000, help="batches of 32 rows (default 9000)")
    parser.add_argument("--seed", type=int, default=0, help="of the initial weights and of batches (default 0)")
    parser.add_argument("--threads", type=int, default=1, help="of torch (default 1)")
    options = parser.parse_args()
    if options.steps < 1 or options.threads < 1:
        parser.error("--steps and --threads are counts of at least 1")
    for out in (each for each in (options.out, options.tokens) if each):
        if out.is_dir() or not os.access(out.parent, os.W_OK):
            parser.error(f"{out} cannot be written: it is a folder, or its folder is missing or not writable")
    # This process is the script's own.
    torch.set_num_threads(options.threads)  # noqa: TID251
    try:
        if options.check:
            model = load_induction(options.check)
        else:
            model = train_induction(_read_text(options.text, options.tokens), options.out, options.steps, options.seed)
    except (FileNotFoundError, ValueError) as error:
        parser.error(str(error))
    sys.stdout.writelines(tell_mean_losses(model))


def _read_text(path: Path | None, tokens: Path | None) -> Tensor:
    if path is None or not path.is_file():
        raise FileNotFoundError(
            f"no text at {path}; expected --text FILE of what `bible -l99999 gen1:1-rev22:21` prints"
        )
    text = clean_text(path.read_text())
    pieces = learn_pairs(text) if tokens else load_text(SHIPPED_TEXT)[1]
    trained, held_out = split_text(encode_text(text, pieces))
    if tokens:
        write_whole(tokens, lambda file: file.write(pack_text(held_out, pieces)))
    return trained.flatten().long()


if __name__ == "__main__":
    main()
