# ---
# jupyter:
#   jupytext:
#     text_representation:
#       extension: .py
#       format_name: percent
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # Three circuits, each in at most twelve lines
#
# 1. The key path of induction heads, on a two-layer attention-only model that was trained and ships with pscrub.
# 2. Eleven edges, as in the circuit for indirect objects, on a GPT-2 of 12 layers of 12 heads with random weights: how
#    it is said, and that what is not said is resampled or stays. What it says itself is taken for the answer.
# 3. A direction, a set of neurons and a latent of a sparse autoencoder, on the same model.
#
# What the lines mean is told in [docs/circuits.md](../docs/circuits.md).

# %%
import matplotlib.pyplot as plt
import torch
import transformers
from torch import nn
from torch.nn import functional

from pscrub import Dataset, Study, circuit, open_decoder, scrub, unroll
from pscrub.graph import Family, Subspace, input_of
from pscrub.hypothesis import write_circuit
from pscrub.studies.induction.heads import find_heads
from pscrub.studies.induction.model import D_HEAD, HEADS, sinusoids
from pscrub.studies.induction.rows import MATCH, as_dataset, random_rows
from pscrub.studies.induction.study import choose_model

# %% [markdown]
# ## 1. Keys of induction heads come from the previous-token head, at the position before
#
# The model is no model of Hugging Face, so where its values are is said by a table. Its weights are put into a module
# whose heads stand one after another in the last axis, as names of heads expect; `open_decoder` says how equal the
# graph's logits are to that module's.

# %%
trained = choose_model()


class Block(nn.Module):
    """LayerNorm, queries, keys and values with heads side by side, attention, what is added to the stream."""

    def __init__(self, block: nn.Module) -> None:
        super().__init__()
        weights = block.state_dict()
        self.norm = block.ln1
        self.q, self.k, self.v, self.out = (nn.Linear(HEADS * D_HEAD, HEADS * D_HEAD, bias=False) for _ in range(4))
        for part, linear in (("Q", self.q), ("K", self.k), ("V", self.v)):  # [head, width, d_head] to [out, in]
            linear.weight.data = weights[f"attn.W_{part}"].transpose(1, 2).flatten(0, 1)
        self.out.weight.data = weights["attn.W_O"].flatten(0, 1).T

    def forward(self, stream: torch.Tensor, positions: torch.Tensor) -> torch.Tensor:
        normed = self.norm(stream)
        placed = normed + positions
        q, k, v = (
            each.unflatten(2, (HEADS, D_HEAD)).transpose(1, 2)
            for each in (self.q(placed), self.k(placed), self.v(normed))
        )
        attended = functional.scaled_dot_product_attention(q, k, v, is_causal=True)
        return stream + self.out(attended.transpose(1, 2).flatten(2))


class AttentionOnly(nn.Module):
    """Logits [row, position, 256] of tokens [row, position]."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Embedding.from_pretrained(trained.embed.W_E.detach())
        self.blocks = nn.ModuleList(Block(block) for block in trained.blocks)
        self.final, self.unembed = trained.ln_final, trained.unembed
        self.register_buffer("positions", sinusoids())

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        stream = self.embed(tokens)
        for block in self.blocks:
            stream = block(stream, self.positions[: tokens.shape[1]])
        return self.unembed(self.final(stream))


table = Family(
    "blocks.{i}", {"embed": "embed", "q": ".q", "k": ".k", "v": ".v", "z": input_of(".out"), "attn_out": ".out"},
    heads=HEADS,
)  # fmt: skip
model = AttentionOnly().eval()
found = find_heads(trained, random_rows("selection", 1_000))
data = as_dataset(random_rows("scoring", 1_000))
with torch.no_grad():
    print(f"as trained to {(model(data['tokens']) - trained(data['tokens'])).abs().max():.1e}")
print(f"previous-token heads {found.previous}, induction heads {found.induction}, by attention on the selection half")
decoder = open_decoder(model, data, family=table, inputs=["tokens"])

# %% [markdown]
# A row is random tokens and some of them again; the last token, the *query*, has stood there before, and what came
# after it is asked for. The place of that answer is the *match*. An induction head's key there is claimed to tell the
# token before the match, which the previous-token head put there: two rows with the same token before the match may
# exchange what that head writes, at the match, for those keys. What everything else is computed from stays.
#
# Beside the claim two false ones: the same of other heads of the first layer, and that the rows agree on the token
# *at* the match in place of the one before.

# %%
KEYS = """
name induction = {induction}
name previous = {previous}
logits@END       <- induction@END
induction.k@here <- previous@here
previous@here    : {feature}
"""
first = [head for head in range(HEADS) if head not in found.previous]


def keys(name: str, previous: list[int] | tuple[int, ...], feature: str):
    said = KEYS.format(
        induction=" ".join(f"1.{head}" for head in found.induction),
        previous=" ".join(f"0.{head}" for head in previous),
        feature=feature,
    )
    loss = decoder.answer_log_prob("target")
    return circuit(name, decoder, said, behaviour=loss, positions={"here": MATCH}, rest="exact")


study = Study(
    "keys of induction heads",
    [
        keys("the token before", found.previous, "query"),
        keys("resampled", found.previous, "anything"),
        keys("the token at the match", found.previous, "target"),
        keys("other heads, resampled", first[: len(found.previous)], "anything"),
    ],
    labels=("target",),
)
keyed = scrub(study, draws=4_096)
print(keyed)

# %%
figure, axes = plt.subplots(figsize=(7, 2.2))
for place, result in enumerate(reversed(keyed.results)):
    score = result.recovered
    axes.errorbar(score.value, place, xerr=[[score.value - score.low], [score.high - score.value]], fmt="o", color="C0")
axes.set_yticks(range(len(keyed.results)), [result.hypothesis for result in reversed(keyed.results)])
axes.set_xlabel("loss recovered, %, with 95 % intervals")
axes.set_title("What induction heads' keys are claimed to read")
figure.tight_layout()
plt.show()

# %% [markdown]
# Only if rows are swapped that have the same token before the match is the loss kept. The other heads of the first
# layer hardly matter to these keys, whatever is put in their place.

# %% [markdown]
# ## 2. Eleven edges

# %%
torch.manual_seed(0)
sizes = {"n_layer": 12, "n_head": 12, "n_embd": 48, "vocab_size": 500, "n_positions": 32, "initializer_range": 0.2}
gpt2 = transformers.GPT2LMHeadModel(transformers.GPT2Config(**sizes, bos_token_id=0, eos_token_id=0)).eval()
rows = torch.arange(40)
ids = torch.randint(0, 500, (40, 16), generator=torch.Generator().manual_seed(1))
with torch.no_grad():
    own = gpt2(ids).logits[:, -1]
prompts = Dataset(
    {
        "input_ids": ids,
        "io": own.argmax(1),  # what it says, and what it is farthest from saying, so that there is a loss to recover
        "subject": own.argmin(1),
        "S1": 2 + rows % 3,
        "S2": 9 + rows % 4,
        "names": rows % 8,
    }
)
language = open_decoder(gpt2, prompts)
difference = language.logit_difference("io", "subject")
IOI = """
logits@END <- 9.9@END 10.0@END
9.9.q@END  <- 7.3@END 8.6@END
10.0.q@END <- 7.3@END 8.6@END
7.3.v@S2   <- 0.1@S2 5.5@S2
8.6.v@S2   <- 0.1@S2 5.5@S2
5.5.k@S1+1 <- 4.11@S1+1
7.3@END 8.6@END : names
"""
STAYING = IOI + "0.1@S2 4.11@S1+1 : names"  # with all else exact, what is to be swapped has to say what it agrees on
edges = circuit("the rest resampled", language, IOI, behaviour=difference)
stays = circuit("the rest exact", language, STAYING, behaviour=difference, rest="exact")
print(write_circuit(edges))
print(unroll(edges))
print(scrub([edges, stays], draws=400))

# %% [markdown]
# ## 3. A direction, neurons, a latent
#
# A latent of a sparse autoencoder is read by one direction, its encoder's, and written by another, its decoder's: what
# is swapped is the activation times the decoder's direction, and the rest of the stream stays, its error included.
# (The encoder's bias and the ReLU are the latent's business only where it is active: what is swapped here is linear.)

# %%
generator = torch.Generator().manual_seed(2)
direction = torch.linalg.qr(torch.randn(48, 1, generator=generator))[0]
encoder, decoder_of_it = (torch.randn(48, 1, generator=generator) for _ in range(2))
encoder = encoder / (encoder * decoder_of_it).sum()  # so that writing and reading again gives the same
directions = {
    "name": Subspace(direction, direction.T),
    "latent": Subspace(encoder, decoder_of_it.T),
}
PARTS = """
logits@END               <- resid_mid.11[name]@END m11@END
m11@END                  <- mlp_post.11[3,17,40]@END
mlp_post.11[3,17,40]@END <- resid_mid.11[latent]@END
resid_mid.11[name]@END resid_mid.11[latent]@END mlp_post.11[3,17,40]@END : names
"""
parts = circuit(
    "a direction, three neurons, a latent", language, PARTS, behaviour=difference, directions=directions, rest="exact"
)
print(scrub(parts, draws=400))

# %%
recovered = {result.hypothesis: result.recovered for result in keyed.results}
true, broken = recovered["the token before"], recovered["resampled"]
assert true.low > broken.high and recovered["other heads, resampled"].low > broken.high
for said in (IOI, PARTS, KEYS):
    assert len([line for line in said.splitlines() if line.strip()]) <= 12
