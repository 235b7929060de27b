"""Prints what is measured of SmolLM2-135M's heads, how well it does on both halves.

python -m pscrub.studies.ioi.measured
python -m pscrub.studies.ioi.measured --model shuffled
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator, Sequence

import torch
from torch import nn

from pscrub.data.dataset import Dataset
from pscrub.errors import PscrubError
from pscrub.studies.ioi.heads import PLACES, Found, Head, Measured, find_ioi_heads, measure_heads
from pscrub.studies.ioi.prompts import HALVES, PROMPTS, make_prompts
from pscrub.studies.ioi.study import BEHAVIOURS, MODELS, SELECTING, load_ioi_model

AT_ONCE = 64
KINDS = ("movers", "negative", "suppressors", "inhibition", "duplicates", "induction", "previous")


def tell_ioi_heads(measured: Measured, found: Found) -> Iterator[str]:
    """Returns lines of what is measured, each with its newline: heads of each kind, then those that matter most.

    Columns: the mean attention at PLACES; what a head adds to the logit difference; what it matters to loss and
    difference, in nats and logits.
    """
    yield f"loss {measured.loss:.3f} nats, {measured.guess:.3f} with other prompts' answers; "
    yield f"logit difference {measured.difference:.2f}\n"
    yield f"{'kind':12} {'head':>5} {' '.join(f'{name:>10}' for name in PLACES)}  direct  loss  difference\n"
    for kind in KINDS:
        for head in getattr(found, kind):
            yield _line(kind, head, measured)
    for place, head in enumerate(found.ranked[:20], 1):
        yield _line(f"{place}.", head, measured)


def score_prompts(subject: nn.Module, data: Dataset) -> str:
    """The model's mean loss, logit difference and accuracy on prompts."""
    with torch.no_grad():
        answers = torch.cat([subject(input_ids=some).logits[:, -1] for some in data["input_ids"].split(AT_ONCE)])
    said = []
    for name, f in BEHAVIOURS.items():
        columns = [data[each] for each in f.inputs[1:]]
        said.append(f"{name} {float(f.fn(answers, *columns).mean()):.3f}")
    return ", ".join(said)


def _line(kind: str, head: Head, measured: Measured) -> str:
    shares = " ".join(f"{float(measured.attention[name][head]):10.2f}" for name in PLACES)
    numbers = f"{float(measured.direct[head]):7.2f} {float(measured.matters[head]):5.2f}"
    of_difference = float(measured.matters_to_difference[head])
    return f"{kind:12} {f'{head[0]}.{head[1]}':>5} {shares} {numbers} {of_difference:11.2f}\n"


def main(arguments: Sequence[str] | None = None) -> None:
    """Returns nothing: prints what is measured."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", choices=MODELS, default=MODELS[0], help="which model (default: trained)")
    parser.add_argument("--prompts", type=int, default=PROMPTS, help=f"to score on (default: {PROMPTS})")
    options = parser.parse_args(arguments)
    try:
        subject = load_ioi_model(options.model)
        for half in HALVES:
            sys.stdout.write(f"{half}: {score_prompts(subject, make_prompts(half, options.prompts))}\n")
        measured = measure_heads(subject, make_prompts(HALVES[0], SELECTING))
        sys.stdout.writelines(tell_ioi_heads(measured, find_ioi_heads(measured)))
    except PscrubError as error:
        parser.error("; ".join(error.faults))


if __name__ == "__main__":
    main()
