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
# # Superposition: explaining a model whose neuron holds two features
#
# The target is y = a x1² + b x2², with x1 and x2 independent, of mean 0 and variance 1, and often 0. The model has
# one neuron: (c x1 + d x2)² + e. If c and d are both other than 0 it holds both features in superposition, and pays
# for it with *interference*: the term 2 c d x1 x2, which nobody asked for.
#
# No node of this model computes one feature. The model may be rewritten, though, as long as it stays the same
# function on D: c² x1² + d² x2² + 2 c d x1 x2 + e. Then one can claim that each feature's term matters, and the
# interference does not.

# %%
import matplotlib.pyplot as plt

from pscrub import check_rewrites, scrub, unroll
from pscrub.graph import equal_on
from pscrub.law import entropy_budget, scrubbed_expectation
from pscrub.questions import agreements
from pscrub.studies import load

study = load("superposition")
model, whole, together, apart = study.hypotheses
difference = equal_on(model.graph, whole.graph, whole.data)
print(f"the rewrite changes f on D by {difference.value:.1e} at most, at row {difference.row}")

# %% [markdown]
# ## The claim keeps the loss exactly
#
# Interference taken from another input no longer goes with the x1 and x2 that it is added to. But x1 x2 is as often
# positive as negative whatever the squares are, so its average cost is what it was. The explanation says of the
# error only that it is random, and that is true here.

# %%
result = scrub(study, draws=16_384)
found = agreements(study, result)
for each in found:
    interval = f"[{each.measured.low:.4f}, {each.measured.high:.4f}]"
    print(f"{each.hypothesis:38} formula {each.exact:.6f}  enumerated {each.enumerated:.6f}  draws {interval}")

# %% [markdown]
# ## Two halves drawn apart cost less than the whole
#
# Cut the interference into two equal halves, and draw their inputs independently: the mean of two errors has half
# the variance of one, so the same noise is taken to cost 2 c² d² less. Leaving out that the halves go together
# makes the scrubbed model *better* than the model. Sharing one draw, which is the default for inputs of one node,
# does not.

# %%
shares = [0.0, 0.2, 0.4, 0.6, 0.8]
excess = []
for sparsity in shares:
    exact, _, _, halves = (
        scrubbed_expectation(unroll(h)) for h in load("superposition", {"sparsity": str(sparsity)}).hypotheses
    )
    excess.append((exact, halves))

figure, axes = plt.subplots(figsize=(5, 3))
axes.plot(shares, [exact for exact, _ in excess], marker="o", label="model, and interference unimportant")
axes.plot(shares, [halves for _, halves in excess], marker="s", label="two halves drawn apart")
axes.set_xlabel("how often a feature is 0")
axes.set_ylabel("expected loss")
axes.legend()
figure.tight_layout()
plt.show()

# %% [markdown]
# The entropy of the scrubbed inputs says how much each hypothesis allows to be swapped: drawing the halves apart
# claims more than drawing them together, by as much as one more free draw of x1 and x2.

# %%
budgets = {h.name: entropy_budget(unroll(h), bits=True) for h in study.hypotheses}
for name, budget in budgets.items():
    print(f"{name:38} {budget.scrubbed:6.3f} bits (D has {budget.data:.3f})")

# %% [markdown]
# ## Had the model made up for the interference
#
# The claim fails if the error is *not* just random. Let the target itself hold the interference, so that the model
# is right: then taking it from elsewhere costs twice its variance. What the rewrite calls an error has structure,
# and the scrubbed loss shows it.

# %%
from pscrub import Claim, Dataset, Hypothesis

c, d = 0.9, 0.7
columns = dict(whole.data.columns)
columns["y"] = columns["y"] + 2 * c * d * columns["x1"] * columns["x2"]
structured = Dataset(columns, whole.data.weights)
useful = Hypothesis("interference does not matter", whole.graph, structured, whole.claim)
kept = Hypothesis("everything matters", whole.graph, structured, Claim("loss", "exact"))
cost = scrubbed_expectation(unroll(useful)) - scrubbed_expectation(unroll(kept))
print(f"taking the interference for noise costs {cost:.6f}; twice its variance is {2 * (2 * c * d) ** 2:.6f}")

# %% [markdown]
# ## What has been shown

# %%
assert difference.value < 1e-12
assert check_rewrites(whole.graph, whole.data)[0].difference == difference.value
assert all(each.agrees for each in found)
E = [each.enumerated for each in found]
assert abs(E[1] - E[0]) < 1e-12 and abs(E[2] - E[0]) < 1e-12
assert abs(E[0] - E[3] - 2 * c**2 * d**2) < 1e-12
assert all(abs(exact - halves - 2 * c**2 * d**2) < 1e-12 for exact, halves in excess)
assert result["nor do its halves, drawn apart"].recovered.low > 110
assert abs(budgets[apart.name].scrubbed - budgets[together.name].scrubbed - budgets[apart.name].data) < 1e-9
assert budgets[whole.name].scrubbed > budgets[model.name].scrubbed
assert abs(cost - 2 * (2 * c * d) ** 2) < 1e-12
