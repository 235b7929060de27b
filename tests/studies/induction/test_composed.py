"""The study of SmolLM2's induction heads, on a small Llama with random weights, and heads found in planted patterns."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from pscrub import Study, StudyError, scrub, unroll
from pscrub.evaluate.engine import Engine
from pscrub.law import draw
from pscrub.studies import smollm2
from pscrub.studies.induction.composed import Composing, build_composed, find_composing, make_rows, study
from pscrub.studies.induction.rows import LENGTH, MATCH, PERIOD
from tests.studies.ioi.small_llama import WIDTH, random_llama

FOUND = Composing(((0, 1),), ((2, 3), (2, 2), (1, 0)), others=((0, 2), (0, 3), (1, 1), (1, 2), (2, 0), (2, 1)))


def test_rows_repeat_and_halves_differ() -> None:
    one, other = (make_rows(half, 50, 5_000) for half in ("selection", "scoring"))
    ids = one["input_ids"]
    assert torch.equal(ids[:, PERIOD:], ids[:, :MATCH]) and all(len({*row}) == PERIOD for row in ids.tolist())
    assert torch.equal(one["query"], ids[:, MATCH - 1]) and torch.equal(one["target"], ids[:, MATCH])
    assert {*ids.flatten().tolist()} & {*other["input_ids"].flatten().tolist()}  # of one pool, and no row of both
    assert not (ids[:, None] == other["input_ids"][None]).all(2).any()
    assert len({*one["query"].tolist()} | {*other["query"].tolist()}) <= 24


class Planted:
    """Attends as it is told: layer, head -> shares to the token before, from the match, and to it, from the end."""

    def __init__(self, shares: dict[tuple[int, int], tuple[float, float]], layers: int = 4, heads: int = 3) -> None:
        self.shares, self.layers, self.heads = shares, layers, heads
        self.config, self.kinds = SimpleNamespace(_attn_implementation="sdpa"), list[str]()
        self.model = self.attend

    def set_attn_implementation(self, kind: str) -> None:
        self.kinds.append(kind)

    def attend(self, input_ids: Tensor, **options: Any) -> Any:
        patterns = torch.zeros(self.layers, len(input_ids), self.heads, LENGTH, LENGTH)
        for (layer, head), (before, match) in self.shares.items():
            patterns[layer, :, head, MATCH, MATCH - 1], patterns[layer, :, head, -1, MATCH] = before, match
        return SimpleNamespace(attentions=tuple(patterns))


def test_heads_are_found_by_where_they_attend() -> None:
    shares = {(0, 1): (0.6, 0.0), (1, 2): (0.9, 0.1), (3, 0): (0.8, 0.0), (2, 1): (0.1, 0.7), (3, 2): (0.0, 0.9)}
    model = Planted({**shares, (0, 0): (0.0, 0.8), (1, 0): (0.2, 0.1)})
    found = find_composing(model, make_rows("selection", 20, 5_000)["input_ids"])
    assert found.previous == ((1, 2), (0, 1)) and found.induction == (
        (3, 2),
        (2, 1),
    )  # 3.0 is below none, 0.0 above none
    assert found.others == ((0, 2), (1, 0), (1, 1), (2, 0), (2, 2), (3, 1)) and model.kinds == ["eager", "sdpa"]
    assert found.below == ((0, 2), (1, 0), (1, 1)) and found.beside == ((2, 0), (2, 2), (3, 1))
    below, beside = found.random(0)
    assert len(below) == len(beside) == 2 and {*below} <= {*found.below} and {*beside} <= {*found.beside}
    with pytest.raises(StudyError, match="previous-token heads none, induction heads none, 0 others below"):
        find_composing(Planted({}), make_rows("selection", 20, 5_000)["input_ids"])


def test_each_claim_is_well_formed_and_on_own_data_the_model() -> None:
    model, data = random_llama(3), make_rows("scoring", 24, smollm2.VOCABULARY)
    made = build_composed(model, data, FOUND)
    assert "previous-token heads 0.1; induction heads 2.3, 2.2, 1.0; random ones 0." in made.notes[0]
    names = {h.name[:2]: h for h in made.hypotheses}
    claims = {claim.name for claim in names["1b"].claims}
    assert {"2.g1.k@match", "1.g0.k@match", "0.1@match", "2.3@END"} <= claims and "2.3.q@END" not in claims
    assert {"2.3.q@END", "2.2.q@END", "1.0.q@END", "0.1@END"} <= {claim.name for claim in names["2b"].claims}
    with torch.no_grad():
        logits = model(input_ids=data["input_ids"]).logits[:, -1]
    own, engine, rows = cross_entropy(logits, data["target"], reduction="none"), Engine(data), torch.arange(data.n)
    for h in made.hypotheses:
        if h.name.startswith("0b"):
            continue  # the logits are of another datum, which is no tree node's
        tree = unroll(h)
        f = engine.f(tree, dict.fromkeys(tree.sites, rows))
        torch.testing.assert_close(f, own.double(), rtol=1e-4, atol=1e-5)
    keys = unroll(names["1b"])
    swapped = {path: rows.flip(0) if path.endswith("0.1@match") else rows for path in keys.sites}
    assert (engine.f(keys, swapped) - own).abs().max() > 1e-4  # the path is there, and is all that is swapped
    assert len(swapped) - sum(torch.equal(each, rows) for each in swapped.values()) == 3


class Hooked:
    """A Llama run with what heads write, or keys, given by hand; what was computed is seen."""

    def __init__(self, model: Any, ids: Tensor) -> None:
        self.model, self.ids, self.seen = model, ids, dict[tuple[str, int], Tensor]()

    def run(self, rows: Tensor, given: dict[tuple[str, int, int, int], Tensor]) -> Tensor:
        """Logits at the end; (part, layer, head, position) -> [rows, 8], with "z" or "k" for the part."""

        def put(part: str, layer: int, value: Tensor) -> Tensor:
            heads = value.clone().view(*value.shape[:2], -1, WIDTH)
            for (each, at, head, position), new in given.items():
                if (each, at) == (part, layer):
                    heads[:, position, head] = new
            self.seen[part, layer] = heads
            return heads.flatten(2)

        hooks = []
        for layer, block in enumerate(self.model.model.layers):
            attention = block.self_attn
            hooks += [
                attention.o_proj.register_forward_pre_hook(lambda _, a, at=layer: (put("z", at, a[0]),)),
                attention.k_proj.register_forward_hook(lambda _, a, out, at=layer: put("k", at, out)),
            ]
        try:
            with torch.no_grad():
                logits: Tensor = self.model(input_ids=self.ids[rows]).logits[:, -1]
        finally:
            for hook in hooks:
                hook.remove()
        return logits

    def take(self, part: str, layer: int, head: int, position: int) -> Tensor:
        """What was computed in the last run, [rows, 8]."""
        return self.seen[part, layer][:, position, head]


@pytest.mark.parametrize("row", ["0c", "1a", "1d"])
def test_resampled_heads_and_keys_are_what_hooks_say(row: str) -> None:
    model, data = random_llama(3), make_rows("scoring", 24, smollm2.VOCABULARY)
    h = next(h for h in build_composed(model, data, FOUND).hypotheses if h.name.startswith(row))
    tree = unroll(h)
    drawn = draw(tree, 12, (0,))
    own, end = drawn[tree.root], LENGTH - 1
    hooked, written = Hooked(model, data["input_ids"]), dict[tuple[str, int, int, int], Tensor]()
    for layer, head in FOUND.induction:
        site, group = f"loss/logits@END/{layer}.{head}@END", head // 2
        keys = f"{site}/{layer}.g{group}.k@match"
        if row == "0c":
            hooked.run(drawn[site], {})
        else:
            swapped = own
            given = dict[tuple[str, int, int, int], Tensor]()
            if row == "1a":
                swapped = drawn[keys]
            else:
                hooked.run(drawn[f"{keys}/0.1@match"], {})
                given = {("z", 0, 1, MATCH): hooked.take("z", 0, 1, MATCH)}
            hooked.run(swapped, given)
            hooked.run(own, {("k", layer, group, MATCH): hooked.take("k", layer, group, MATCH)})
        written["z", layer, head, end] = hooked.take("z", layer, head, end)
    expected = cross_entropy(hooked.run(own, written), data["target"][own], reduction="none")
    plain = cross_entropy(hooked.run(own, {}), data["target"][own], reduction="none")
    found = Engine(data).f(tree, drawn)
    torch.testing.assert_close(found, expected.double(), rtol=1e-4, atol=1e-4)
    assert (found - plain).abs().max() > 1e-2  # something was swapped


@pytest.mark.skipif(not smollm2.is_smollm2_there(), reason=smollm2.INSTALL)
def test_keys_of_the_model_itself_read_previous_token_heads() -> None:
    made = study()
    rows = [h for h in made.hypotheses if h.name[:2] in ("0e", "1b", "1c", "4a", "4c")]
    result = scrub(Study("some", rows, labels=made.labels), draws=256)
    kept = {each.hypothesis[:2]: each.recovered.value for each in result.results}
    assert kept["1b"] < 60 and kept["1c"] > 92 and kept["0e"] > 75
    assert kept["4a"] > 90 > 85 > kept["4c"]


@pytest.mark.parametrize(
    ("options", "said"),
    [({"model": "trainde"}, "model is 'trainde'; expected one of trained"), ({"rows": 1}, "rows is 1")],
)
def test_what_makes_no_sense_is_refused(options: Any, said: str) -> None:
    with pytest.raises(StudyError, match=said):
        study(**options)
