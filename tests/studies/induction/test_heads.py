"""Heads measured: on models whose patterns are known."""

import pytest
import torch

from pscrub.studies.induction import heads, rows
from pscrub.studies.induction.model import D_HEAD, D_MODEL, HEADS, LAYERS, Induction, sinusoids


def blank() -> Induction:
    """A model all of whose heads attend alike to every token so far."""
    model = Induction(seed=1)
    with torch.no_grad():
        for block in model.blocks:
            block.get_submodule("attn").get_parameter("W_Q").zero_()
    return model


def test_heads_that_attend_alike_to_all_places() -> None:
    shares = heads.attention_shares(blank(), rows.random_rows("selection", 40))
    for name, place in (("to the token before", rows.MATCH), ("to the match", rows.LENGTH - 1)):
        assert shares[name].shape == (LAYERS, HEADS)
        assert torch.allclose(shares[name], torch.tensor(1 / (place + 1), dtype=torch.float64))


def test_a_planted_previous_token_head_is_found() -> None:
    """Queries turn sinusoids back by one place, so that they fit the keys of the token before best."""
    model = blank()
    tokens = rows.random_rows("selection", 300)
    speeds = torch.exp(-torch.log(torch.tensor(1000.0)) * torch.arange(D_MODEL // 2) / (D_MODEL // 2))
    attention = model.blocks[0].get_submodule("attn")
    with torch.no_grad():
        model.embed.W_E.zero_()
        key, query = torch.zeros(D_MODEL, D_HEAD), torch.zeros(D_MODEL, D_HEAD)
        for pair in range(D_HEAD // 2):
            sine, cosine, angle = 2 * pair, 2 * pair + 1, speeds[pair]
            key[sine, sine] = key[cosine, cosine] = 1
            query[sine, sine] = query[cosine, cosine] = 40 * angle.cos()
            query[cosine, sine], query[sine, cosine] = -40 * angle.sin(), 40 * angle.sin()
        attention.get_parameter("W_Q")[5], attention.get_parameter("W_K")[5] = query, key
    found = heads.find_heads(model, tokens)
    assert found.previous == (5,)
    shares = heads.attention_shares(model, tokens)["to the token before"]
    assert shares[0, 5] > 0.9 and (shares[0, torch.arange(HEADS) != 5] < 0.1).all()
    assert sinusoids()[1, 0] == pytest.approx(torch.sin(torch.tensor(1.0)).item())


def test_some_head_is_found_where_none_attends() -> None:
    found = heads.find_heads(blank(), rows.random_rows("selection", 40))
    assert len(found.previous) == len(found.induction) == 1


def test_patterns_do_not_depend_on_how_rows_are_cut(monkeypatch: pytest.MonkeyPatch) -> None:
    model, tokens = Induction(seed=3), rows.text_rows("selection", 50)
    whole = heads.attention_shares(model, tokens)
    monkeypatch.setattr(heads, "AT_ONCE", 7)
    for name, shares in heads.attention_shares(model, tokens).items():
        assert torch.allclose(shares, whole[name], atol=1e-6)
    assert not model.blocks[0].get_submodule("attn.hook_pattern")._forward_hooks
