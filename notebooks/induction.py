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
# # How does a transformer repeat what it saw? Induction heads
#
# A language model that has seen "... A B ... A" says "B". The published explanation needs two heads. A
# **previous-token head** in the first layer writes, at every place, which token stood before. An **induction head** in
# the second layer asks at the last token, "where did *my* token stand before?", and attends there, one place behind
# the first A; what it passes on is the token at that place, B.
#
# In the words of attention: the induction head's *query* knows its own token, its *keys* know the token before, its
# *value* knows its own token. Each is a claim that can be scrubbed. Here this is done on a two-layer model without
# MLPs that ships with pscrub.

# %%
import matplotlib.pyplot as plt

from pscrub import EXACT, Claim, Hypothesis, check_rewrites, scrub
from pscrub.hypothesis import Study
from pscrub.report import measures
from pscrub.studies import load
from pscrub.studies.induction import graphs
from pscrub.studies.induction.heads import attention_shares, find_heads, mean_patterns
from pscrub.studies.induction.measured import tell_query_losses
from pscrub.studies.induction.rows import LENGTH, MATCH, as_dataset, random_rows, text_rows
from pscrub.studies.induction.study import SELECTED, choose_model
from pscrub.studies.induction.text import load_text
from pscrub.studies.induction.train import tell_mean_losses

model = choose_model()
print("".join(tell_mean_losses(model)))

# %% [markdown]
# ## The rows
#
# A row is 20 tokens, and the first 11 of them again. The last token is the *query*; what followed it the first time is
# the *target*, and stands at the *match*. Tokens are random, so that nothing but the repetition tells the target; or
# they are text that trained nothing, where the target never follows the query in the other half of that text.

# %%
_, pieces = load_text()
for token_ids in text_rows("scoring", 4):
    told = "".join(pieces[token] for token in token_ids.tolist())
    print(repr(told), "->", repr(pieces[token_ids[MATCH]]))
print("".join(tell_query_losses(model, 1024)))

# %% [markdown]
# ## Heads, found on other rows
#
# Which heads attend from the match to the token before it, and which from the query to the match?

# %%
selecting = random_rows("selection", SELECTED)
found, shares, patterns = (
    find_heads(model, selecting),
    attention_shares(model, selecting),
    mean_patterns(model, selecting),
)
print(found)

figure, both = plt.subplots(1, 2, figsize=(10, 4.4), layout="constrained")
for layer, (axes, head) in enumerate(zip(both, (found.previous[0], found.induction[0]), strict=True)):
    axes.imshow(patterns[layer, head], cmap="Blues", vmin=0, vmax=1)
    axes.set(title=f"head {layer}.{head}, mean pattern", xlabel="attends to place", ylabel="from place")

# %% [markdown]
# ## A claim by hand
#
# *The induction heads' keys come from the previous-token heads.* The graph is cut so that the keys of these heads are a
# node, and what each head of the first layer adds is another. The claim says that the keys are computed from the
# previous-token heads' own rows, and that everything else that keys read may be another row's. All else stays as it
# is: `rest="exact"`.

# %%
data = as_dataset(random_rows("scoring", 1024))
graph = graphs.with_heads(graphs.with_first_heads(graphs.trace_induction(model, data)), found.induction)
print("largest change of f on D:", max(check.difference for check in check_rewrites(graph, data)))


def keys_from(heads: tuple[int, ...]) -> Claim:
    keys = Claim("k induction", reads=[Claim(f"0.{head}", EXACT) for head in heads])
    second = Claim("induction", reads=[keys], rest=EXACT)
    return Claim("loss", reads=[Claim("logits", reads=[second], rest=EXACT)], rest=EXACT)


others = tuple(head for head in range(8) if head not in found.previous)[: len(found.previous)]
rows = [
    Hypothesis("keys from previous-token heads", graph, data, keys_from(found.previous)),
    Hypothesis("keys from other heads", graph, data, keys_from(others)),
]
scrub(Study("by hand", rows, labels=("target",), by=("once",)), draws=1024).table

# %% [markdown]
# ## The ladder, with false claims beside the true ones
#
# `pscrub run induction --measures` has 37 rows. Some of them, with fewer draws:
#
# - **0**: the induction heads alone keep everything; as many other heads keep nothing.
# - **1** to **3**: values and queries from the embedding, keys from the previous-token heads, each beside a false one.
# - **4**: all three at once, and refined: what heads of the first layer read at their own token belongs to it.
# - **5** and **6**: what the key, the value and the query *know*. Swapped are rows that agree on that token.

# %%
study = load("induction", {"rows": "1024"})
wanted = ("0c", "0e", "0f", "1a", "1b", "2a", "2b", "3a", "3b", "3c", "4a", "4d", "4f", "5a", "5b", "5c", "6a", "6c")
some = Study(
    "some rows", [each for each in study.hypotheses if each.name.split()[0] in wanted], labels=("target",), by=("once",)
)
result = scrub(some, draws=512)
measures(some, result)

# %%
figure, axes = plt.subplots(figsize=(8, 5.5), layout="constrained")
for place, each in enumerate(reversed(result.results)):
    value, low, high = each.recovered.value, each.recovered.low, each.recovered.high
    axes.errorbar(value, place, xerr=[[value - low], [high - value]], fmt="o", color="C0")
names = [each.hypothesis for each in reversed(result.results)]
axes.set(yticks=range(len(names)), yticklabels=names, xlabel="loss recovered, %")
axes.axvline(0, color="0.7", lw=1)
axes.axvline(100, color="0.7", lw=1)

# %% [markdown]
# ## What it shows
#
# - **The induction heads do it alone**: with everything else of another row nearly all is recovered.
# - **Keys know the token before**, and neither their own token nor the one two before: the match's keys may be those of
#   any row that has the same token before its match.
# - **The sources hold one at a time, and less well together**: the small losses of three claims add up, as in the
#   published study. What helps is to count what the first layer reads at a token itself as part of that token.
# - **What it does not show**: that another model of this size would do it with heads as clean as these.

# %%
recovered = {each.hypothesis.split()[0]: each.recovered.value for each in result.results}
assert len(data["tokens"][0]) == LENGTH and found.previous and found.induction
assert min(recovered[name] for name in ("0e", "1a", "2a", "3a", "4d", "5a", "6a")) > 88
assert max(recovered[name] for name in ("0c", "0f", "1b", "2b", "3b", "3c", "4f", "5b", "5c", "6c")) < 65
assert recovered["4a"] < recovered["4d"]
