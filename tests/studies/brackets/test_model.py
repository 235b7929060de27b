"""The bracket classifier, its shipped weights, and the strings it is trained on."""

import gzip
import json
import sys
from collections import Counter
from itertools import islice, product
from pathlib import Path
from random import Random

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn
from torch.nn import functional

from pscrub.studies.brackets import model as module
from pscrub.studies.brackets import train as training
from pscrub.studies.brackets.model import CONTEXT, BracketClassifier, encode, is_balanced, load_classifier
from pscrub.studies.brackets.train import (
    dyck_word,
    evaluate,
    generate,
    is_held_out,
    kinds,
    learning_rate,
    save_weights,
    train,
)

SHIPPED = Path(module.__file__).with_name("weights.safetensors")
ALL_UP_TO_8 = ["".join(word) for length in range(1, 9) for word in product("()", repeat=length)]
CUT_POINTS = {"hook_embed", "hook_mask", "hook_resid_final"} | {
    f"blocks.{layer}.{name}"
    for layer in range(3)
    for name in ("hook_resid_pre", "attn.hook_heads.0", "attn.hook_heads.1", "hook_resid_mid", "hook_mlp_out")
}


def plainly_balanced(string: str) -> bool:
    """Returns whether a string is balanced, by striking out pairs."""
    while "()" in string:
        string = string.replace("()", "")
    return not string


# The shipped weights


def test_shipped_weights_on_fresh_held_out_strings() -> None:
    scores = evaluate(load_classifier(SHIPPED), generate(6_000, seed=77))
    assert scores["all"].loss <= 0.005
    assert scores["all"].accuracy >= 0.998
    for kind in ("balanced", "only count fails", "only horizon fails", "count and horizon fail", "starts with )"):
        assert scores[kind].strings > 500
        assert scores[kind].accuracy >= 0.99, kind


def test_shipped_weights_are_small() -> None:
    assert SHIPPED.stat().st_size < 300_000


def test_published_weights_load_and_classify_the_published_strings(shared: Path) -> None:
    published = shared / "data" / "brackets"
    with gzip.open(published / "sequences.jsonl.gz", "rt") as lines:
        rows = [json.loads(line) for line in islice(lines, 2_000)]
    tokens = encode([string for string, _ in rows])
    labels = torch.tensor([label for _, label in rows])
    assert torch.equal(is_balanced(tokens), labels)
    model = load_classifier(published / "model.safetensors")
    with torch.no_grad():
        assert functional.cross_entropy(model(tokens), labels.long()) < 0.002


# Files that are no classifier


def test_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"nowhere\.safetensors"):
        load_classifier(tmp_path / "nowhere.safetensors")


def test_file_that_is_not_safetensors_is_named(tmp_path: Path) -> None:
    path = tmp_path / "words.safetensors"
    path.write_text("these are words, not weights")
    with pytest.raises(ValueError, match=r"words\.safetensors cannot be read"):
        load_classifier(path)


def test_other_architecture_lists_every_fault(tmp_path: Path) -> None:
    weights = BracketClassifier().state_dict()
    del weights["ln_final.b"], weights["blocks.2.attn.W_Q"]
    weights["unembed.W_U"] = torch.zeros(56, 3)
    weights["blocks.3.ln1.w"] = torch.ones(56)
    path = tmp_path / "other.safetensors"
    save_file(weights, path)
    with pytest.raises(ValueError, match=r"other\.safetensors") as caught:
        load_classifier(path)
    for fault in (
        "missing ln_final.b",
        "missing blocks.2.attn.W_Q",
        "unexpected blocks.3.ln1.w",
        "unembed.W_U has shape [56, 3], expected [56, 2]",
    ):
        assert fault in str(caught.value)


# The architecture


def test_cut_points_are_parameterless_and_called_once() -> None:
    model, calls = BracketClassifier(), Counter[str]()
    shapes: dict[str, tuple[int, ...]] = {}
    assert {name for name, module in model.named_modules() if isinstance(module, nn.Identity)} == CUT_POINTS

    def watch(name: str) -> None:
        def seen(_module: nn.Module, _inputs: object, output: torch.Tensor) -> None:
            calls[name] += 1
            shapes[name] = tuple(output.shape)

        model.get_submodule(name).register_forward_hook(seen)

    for name in CUT_POINTS:
        watch(name)
    model(encode(["()", "(()", ")"]))
    assert calls == Counter(CUT_POINTS)
    expected: dict[str, tuple[int, ...]] = dict.fromkeys(CUT_POINTS, (3, 42, 56))
    expected |= {"hook_mask": (3, 42), "hook_resid_final": (3, 56)}
    assert shapes == expected


@pytest.mark.parametrize("name", ["blocks.1.hook_resid_pre", "blocks.1.hook_resid_mid"])
def test_reads_do_not_touch_the_residual_stream(name: str) -> None:
    """What a cut read changes reaches the next layer only through that read's own block."""
    model, tokens = BracketClassifier(seed=3), encode(["(()())", ")("])
    block = model.get_submodule("blocks.1")
    silent = block.get_submodule("attn" if name.endswith("pre") else "mlp")
    silent.register_forward_hook(lambda _module, _inputs, output: torch.zeros_like(output))
    before = model(tokens)
    model.get_submodule(name).register_forward_hook(lambda _module, _inputs, output: output + 7.0)
    assert torch.equal(model(tokens), before)


def test_residual_stream_is_the_sum_of_what_was_written() -> None:
    model, tokens = load_classifier(SHIPPED), encode(["(()())", ")(", "(" * 40])
    kept: dict[str, torch.Tensor] = {}
    for name in CUT_POINTS:
        model.get_submodule(name).register_forward_hook(
            lambda _module, _inputs, output, name=name: kept.update({name: output})
        )
    with torch.no_grad():
        model(tokens)
        total = kept["hook_embed"] + model.pos_embed.W_pos
        for layer in range(3):
            at = f"blocks.{layer}."
            total = total + kept[at + "attn.hook_heads.0"] + kept[at + "attn.hook_heads.1"]
            total = total + model.get_parameter(at + "attn.b_O")
            total = total + kept[at + "hook_mlp_out"]
    torch.testing.assert_close(total[:, 0], kept["hook_resid_final"], rtol=0, atol=1e-4)


def test_forward_agrees_with_a_plain_rewriting() -> None:
    """One row at a time, one head at a time, without padding at all."""
    model, strings = load_classifier(SHIPPED).double(), ["(()())", ")(", "(" * 40, "()" * 20, ")"]
    p = model.state_dict()

    def norm(x: torch.Tensor, at: str) -> torch.Tensor:
        centred = x - x.mean(-1, keepdim=True)
        scaled = centred / (centred.square().mean(-1, keepdim=True) + 1e-5).sqrt()
        normed: torch.Tensor = scaled * p[at + ".w"] + p[at + ".b"]
        return normed

    with torch.no_grad():
        logits = model(encode(strings))
        for string, found in zip(strings, logits, strict=True):
            x = torch.stack([p["embed.W_E"][token] for token in [0, *(3 if c == "(" else 4 for c in string), 2]])
            x = x + p["pos_embed.W_pos"][: len(x)]
            for layer in range(3):
                at = f"blocks.{layer}."
                read, written = norm(x, at + "ln1"), p[at + "attn.b_O"]
                for head in range(2):
                    q, k, v = (read @ p[f"{at}attn.W_{c}"][head] + p[f"{at}attn.b_{c}"][head] for c in "QKV")
                    written = written + torch.softmax(q @ k.T / 28**0.5, -1) @ v @ p[at + "attn.W_O"][head]
                x = x + written
                hidden = torch.relu(norm(x, at + "ln2") @ p[at + "mlp.W_in"] + p[at + "mlp.b_in"])
                x = x + hidden @ p[at + "mlp.W_out"] + p[at + "mlp.b_out"]
            expected = norm(x[0], "ln_final") @ p["unembed.W_U"] + p["unembed.b_U"]
            torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-9)


def test_rows_and_trailing_padding_do_not_interact() -> None:
    model, strings = BracketClassifier(seed=5), ["()(", "((((", "()"]
    tokens = encode(strings)
    with torch.no_grad():
        together = model(tokens)
        torch.testing.assert_close(model(tokens[:, :6]), together)
        torch.testing.assert_close(torch.cat([model(row[None]) for row in tokens]), together)


def test_exports_with_a_dynamic_batch() -> None:
    model = load_classifier(SHIPPED)
    batch = torch.export.Dim("batch", min=1)
    exported = torch.export.export(model, (encode(["()", "(("]),), dynamic_shapes=({0: batch},)).module()
    for strings in (["()"], ["()", ")(", "(())"]):
        assert torch.equal(exported(encode(strings)), model(encode(strings)))


def test_random_weights_come_from_the_given_seed_alone() -> None:
    state = torch.get_rng_state()
    one, same, other = BracketClassifier(1), BracketClassifier(1), BracketClassifier(2)
    assert torch.equal(torch.get_rng_state(), state)
    assert torch.equal(one.embed.W_E, same.embed.W_E)
    assert not torch.equal(one.embed.W_E, other.embed.W_E)


# Strings and tokens


def test_is_balanced_agrees_with_striking_out_pairs() -> None:
    strings = ALL_UP_TO_8 + generate(2_000, seed=3)
    assert is_balanced(encode(strings)).tolist() == [plainly_balanced(string) for string in strings]


def test_encode_agrees_with_a_plain_reference() -> None:
    strings = ["", *ALL_UP_TO_8, *generate(200, seed=4), "(" * 40]
    plain = [
        [0, *({"(": 3, ")": 4}[bracket] for bracket in string), 2] + [1] * (CONTEXT - 2 - len(string))
        for string in strings
    ]
    assert encode(strings).dtype == torch.int64
    assert encode(strings).tolist() == plain
    assert encode([]).shape == (0, CONTEXT)


@pytest.mark.parametrize("bad", ["(" * 41, "(x)", "^()", "() ", "(é)"])
def test_encode_refuses_other_strings(bad: str) -> None:
    with pytest.raises(ValueError, match="1 of 2 strings cannot be encoded, the first at row 1"):
        encode(["()", bad])


def test_dyck_words_are_uniform() -> None:
    rng, draws = Random(0), 14_000
    counts = Counter(dyck_word(4, rng) for _ in range(draws))
    assert len(counts) == 14
    assert all(plainly_balanced(word) for word in counts)
    # 13 degrees of freedom; 45.1 is exceeded once in 50,000 times.
    assert sum((count - draws / 14) ** 2 for count in counts.values()) / (draws / 14) < 45.1


def test_generated_strings_are_a_varied_mixture() -> None:
    strings = generate(4_000, seed=11)
    shares = {name: count / 4_000 for name, count in Counter(kind for s in strings for kind in kinds(s)).items()}
    assert 0.25 < shares["balanced"] < 0.5
    assert min(shares["only count fails"], shares["only horizon fails"], shares["count and horizon fail"]) > 0.1
    assert shares["starts with )"] > 0.2
    assert {len(string) for string in strings} == set(range(2, 41))
    assert strings == generate(4_000, seed=11)
    assert strings[:100] != generate(100, seed=12)


def test_training_never_sees_a_long_held_out_string() -> None:
    training, held_out = generate(4_000, seed=1, training=True), generate(4_000, seed=1)
    assert not {s for s in training if len(s) > 12} & {s for s in held_out if len(s) > 12}
    assert not any(is_held_out(string) for string in training)
    assert sum(len(s) > 12 for s in held_out) > 2_000


def test_kinds_agree_with_the_features_as_the_study_states_them() -> None:
    for string in ALL_UP_TO_8:
        shares = [string[i:].count("(") / (len(string) - i) for i in range(len(string))]
        count, horizon = shares[0] == 0.5, max(shares) <= 0.5
        assert (kinds(string)[0] == "balanced") == (count and horizon) == plainly_balanced(string)
        assert (kinds(string)[0] == "only count fails") == (horizon and not count)
        assert (kinds(string)[0] == "only horizon fails") == (count and not horizon)


# The training script


def test_saved_weights_come_back_the_same(tmp_path: Path) -> None:
    model = BracketClassifier(seed=9)
    save_weights(model, tmp_path / "saved.safetensors")
    assert [path.name for path in tmp_path.iterdir()] == ["saved.safetensors"]
    found = load_file(tmp_path / "saved.safetensors")
    assert all(torch.equal(found[name], value) for name, value in model.state_dict().items())


def test_learning_rate_rises_then_falls() -> None:
    rates = [learning_rate(step, 1_000) for step in range(1_000)]
    top = rates.index(max(rates))
    assert rates[: top + 1] == sorted(rates[: top + 1])
    assert rates[top:] == sorted(rates[top:], reverse=True)
    assert rates[-1] < 0.01 * max(rates)


def test_interrupt_saves_the_weights_so_far(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted_at_step_2(step: int, _steps: int) -> float:
        if step == 2:
            raise KeyboardInterrupt
        return 1e-3

    monkeypatch.setattr(training, "learning_rate", interrupted_at_step_2)
    path = tmp_path / "weights.safetensors"
    trained = train(path, steps=50, seed=4)
    assert torch.equal(load_classifier(path).unembed.W_U, trained.unembed.W_U)
    assert not torch.equal(trained.unembed.W_U, BracketClassifier(seed=4).unembed.W_U)


def test_script_refuses_a_folder_before_training(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", ["train_brackets", "--out", str(tmp_path)])
    with pytest.raises(SystemExit) as caught:
        training.main()
    assert caught.value.code == 2


def test_script_trains_and_checks(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def run(*words: str) -> str:
        monkeypatch.setattr(sys, "argv", ["train_brackets", *words, "--held-out", "200"])
        training.main()
        return capsys.readouterr().out

    path = str(tmp_path / "new.safetensors")
    figures = run("--out", path, "--steps", "2", "--seed", "5")
    assert run("--check", path) == figures
    assert [line.split()[:2] for line in figures.splitlines()[:2]] == [["held-out", "strings"], ["all", "200"]]
    with pytest.raises(SystemExit):
        run("--check", str(tmp_path / "none.safetensors"))
    assert "no weights at" in capsys.readouterr().err
