"""Opening a model and saying circuits of it: seconds beside one export, eleven edges, a claim at every head."""

from __future__ import annotations

import itertools
import statistics
import time
from collections.abc import Callable, Iterator

import torch
from torch import Tensor, nn

from pscrub import Dataset, Hypothesis, circuit, open_decoder, unroll
from pscrub.graph import trace, trace_all
from tests.benchmarks.patching import HEADS, LAYERS, gpt2
from tests.benchmarks.timing import alternate, short, table

ROWS, POSITIONS = 16, 64
EDGES = """
logits@END <- 9.9@END 10.0@END
9.9.q@END  <- 7.3@END 8.6@END
10.0.q@END <- 7.3@END 8.6@END
7.3.v@S2   <- 0.1@S2 5.5@S2
8.6.v@S2   <- 0.1@S2 5.5@S2
5.5.k@S1+1 <- 4.11@S1+1"""
IOI = f"{EDGES}\n7.3@END 8.6@END : names"


class Logits(nn.Module):
    """The model's logits of token ids alone: what one calls `torch.export.export` on."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, input_ids: Tensor) -> Tensor:
        logits: Tensor = self.model(input_ids=input_ids, use_cache=False).logits
        return logits


def report(quick: bool) -> Iterator[str]:
    """Two tables: what opening takes beside exports made in turn, and what saying and checking circuits takes."""
    width, vocabulary, repeats = (48, 500, 1) if quick else (768, 50_257, 3)
    model, rows = gpt2(width, vocabulary), torch.arange(ROWS)
    ids = torch.randint(0, vocabulary, (ROWS, POSITIONS), generator=torch.Generator().manual_seed(0))
    columns = {"input_ids": ids, "good": rows, "bad": rows + 100, "names": rows % 4, "S1": 2 + rows % 3}
    data = Dataset({**columns, "S2": 9 + rows % 4})
    alone = Logits(model)
    batch = ({0: torch.export.Dim("rows", min=2)},)

    def open_and_say() -> None:
        decoder = open_decoder(model, data, tell=None)
        circuit("IOI", decoder, IOI, behaviour=decoder.logit_difference("good", "bad"))

    ways: dict[str, Callable[[], object]] = {
        "`torch.export.export` alone": lambda: torch.export.export(
            alone, (ids[:5],), dynamic_shapes=batch, strict=False
        ),
        "`trace` with no cut": lambda: trace(alone, data, cuts={}, inputs=["input_ids"], output="logits"),
        "`trace_all`": lambda: trace_all(alone, data, inputs=["input_ids"]),
        "`open_decoder`": lambda: open_decoder(model, data, tell=None),
        "`open_decoder` and `circuit`, eleven edges": open_and_say,
    }
    times = alternate(ways, repeats)
    first, *_, last = times
    lines = [
        (name, short(each.wall), short(each.cpu), short(each.cpu / times[first].cpu), short(times[last].cpu / each.cpu))
        for name, each in times.items()
    ]
    yield (
        f"### Circuits\n\nGPT-2 of {LAYERS} layers of {HEADS} heads, width {width}, {vocabulary:,} tokens, "
        f"random weights, {ROWS} rows of {POSITIONS} positions; medians of {repeats}, in turn; "
        "ratios of processor time.\n\n"
        + table(("", "s", "processor s", "of the first", "the last is so many of it"), lines)
    )
    decoder = open_decoder(model, data, tell=None)
    loss = decoder.logit_difference("good", "bad")
    every = " ".join(f"{layer}.{head}@*" for layer in range(LAYERS) for head in range(HEADS))
    texts = {
        "eleven edges": IOI,
        "a claim at every head and position": f"logits <- {every} \n {every} : names",
    }
    yield table(
        ("processor s", "claims", "sites", "`circuit`", "faults looked for", "unrolled", "f held against the model's"),
        [(name, *_measure(lambda text=text: circuit("said", decoder, text, behaviour=loss), repeats))
         for name, text in texts.items()],
    )  # fmt: skip


def _measure(say: Callable[[], Hypothesis], repeats: int) -> tuple[str, ...]:
    """Claims, sites, and processor seconds: medians over hypotheses made anew, as one keeps what was checked."""
    found = []
    for _ in range(repeats):
        marks = [time.process_time()]
        h = say()
        marks.append(time.process_time())
        h.check(rewrites=False)
        marks.append(time.process_time())
        tree = unroll(h)
        marks.append(time.process_time())
        h.check()
        marks.append(time.process_time())
        found.append([after - before for before, after in itertools.pairwise(marks)])
    seconds = (short(statistics.median(each)) for each in zip(*found, strict=True))
    return f"{len(h.claims):,}", f"{len(tree.sites):,}", *seconds
