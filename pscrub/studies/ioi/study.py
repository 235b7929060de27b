"""How does SmolLM2-135M tell the indirect object? Heads at the end, what they carry, and the circuit that they are.

The claims are those of the published study of GPT-2 small (name movers, negative movers, S-inhibition, duplicate-token
and previous-token heads), made about another model. Heads are measured on prompts of names that are not scored.
"""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor, nn

from pscrub.data.dataset import Dataset
from pscrub.errors import StudyError, close
from pscrub.graph.graph import Node
from pscrub.graph.judging import LOGITS
from pscrub.graph.opening import open_decoder
from pscrub.hypothesis.study import Study
from pscrub.studies.ioi.heads import Found, Measured, find_ioi_heads, measure_heads, name_heads
from pscrub.studies.ioi.ladder import CHOSEN, Ladder
from pscrub.studies.ioi.prompts import PROMPTS, make_prompts
from pscrub.studies.smollm2 import load_smollm2

MODELS = ("trained", "shuffled")
SELECTING = 128
"""Prompts that heads are measured on."""
DRAWS = 128
"""Each is half of a forward or more of a language model."""


def study(
    prompts: int = PROMPTS, behaviour: str = "loss", model: str = "trained", only: str = "", seed: int = 0
) -> Study:
    """The study on SmolLM2-135M, or on a control that has learnt nothing.

    Args:
        prompts: how many to score on, a multiple of 64.
        behaviour: f: the "loss" of the answer in nats; "difference", IO's logit less S's; or "accuracy".
        model: "trained", or "shuffled": the entries of each matrix permuted, and heads measured anew.
        only: how the names of the rows to score begin, with commas between ("1b 20,2"); by default all.
        seed: of the prompts, and of the controls: random heads, shuffled features, permuted weights.

    Raises:
        StudyError: the model is not installed (says how to install it), an unknown behaviour or model, or a number of
            prompts that cannot be made.
    """
    faults = [] if model in MODELS else [f"model is '{model}'; expected one of {', '.join(MODELS)}"]
    if behaviour not in BEHAVIOURS:
        faults.append(f"behaviour is '{behaviour}'{close(behaviour, BEHAVIOURS)}; one of {', '.join(BEHAVIOURS)}")
    if not set(only.replace(" ", "")[:1]) <= set("01234"):
        faults.append(f"only is '{only}'; rows begin with 0 to 4, as '1b 20' or '2'")
    if faults:
        raise StudyError(faults)
    data = make_prompts("scoring", prompts, seed)
    subject = load_ioi_model(model, seed)
    measured = measure_heads(subject, make_prompts("selection", SELECTING, seed), seed)
    whole = build(subject, data, measured, behaviour, seed)
    wanted = tuple(begin.strip() for begin in only.split(","))
    return replace(whole, hypotheses=[each for each in whole.hypotheses if each.name.startswith(wanted)])


def build(subject: nn.Module, data: Dataset, measured: Measured, behaviour: str = "loss", seed: int = 0) -> Study:
    """The study of a Llama on D, with the heads that were measured on other prompts.

    Args:
        subject: the model.
        data: D, as `make_prompts` makes it.
        measured: of the selection half.
        behaviour: as `study` says.
        seed: of the controls.
    """
    found, f = find_ioi_heads(measured), BEHAVIOURS[behaviour]
    ladder = Ladder(open_decoder(subject, data, tell=None), found, (ANSWERS, f), seed)
    return Study(
        "ioi",
        ladder.hypotheses(),
        __doc__.split("\n")[0],
        labels=f.inputs[1:],
        notes=tell_found(found),
        by=("order",),
        draws=DRAWS,
    )


def tell_found(found: Found) -> tuple[str, ...]:
    """Lines that name the heads of each kind."""
    kinds = {
        "movers": found.movers,
        "negative movers": found.negative,
        "suppressors of S": found.suppressors,
        "S-inhibition": found.inhibition,
        "duplicate-token": found.duplicates,
        "induction": found.induction,
        "previous-token": found.previous,
    }
    return (
        f"Heads, measured on {SELECTING} other prompts: "
        f"{'; '.join(f'{kind} {name_heads(heads)}' for kind, heads in kinds.items())}.",
        f"The {CHOSEN} that matter most at the end: {name_heads(found.ranked[:CHOSEN])}.",
    )


def load_ioi_model(which: str = "trained", seed: int = 0) -> nn.Module:
    """The model that is asked for: one of MODELS, as `study` says."""
    found = load_smollm2()
    if which == "shuffled":
        generator = torch.Generator().manual_seed(seed)
        with torch.no_grad():
            for parameter in found.parameters():
                mixed = parameter.flatten()[torch.randperm(parameter.numel(), generator=generator)]
                parameter.copy_(mixed.view_as(parameter))
    return found


def _last(logits: Tensor) -> Tensor:
    return logits[:, -1]


def _loss(answers: Tensor, io: Tensor) -> Tensor:
    return -answers.log_softmax(-1).gather(1, io[:, None])[:, 0]


def _difference(answers: Tensor, io: Tensor, s: Tensor) -> Tensor:
    return (answers.gather(1, io[:, None]) - answers.gather(1, s[:, None]))[:, 0]


def _accuracy(answers: Tensor, io: Tensor) -> Tensor:
    return (answers.argmax(-1) == io).to(answers.dtype)


ANSWERS = Node("answers", (LOGITS,), _last)
"""The logits at the end, [batch, vocabulary], a node of its own so that output distances are of them alone."""
BEHAVIOURS = {
    "loss": Node("loss", (ANSWERS.name, "io"), _loss),
    "difference": Node("difference", (ANSWERS.name, "io", "s"), _difference),
    "accuracy": Node("accuracy", (ANSWERS.name, "io"), _accuracy),
}
"""Name -> f, of the logits at the end."""
