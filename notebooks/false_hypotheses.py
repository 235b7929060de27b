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
# # False hypotheses that pass
#
# Causal scrubbing does not promise to reject every false hypothesis. A hypothesis says what may be swapped, and
# swapping may *help* the model. This notebook walks through the appendix's example of that (section 7), and through
# explanations that cannot fail because they say nothing.

# %%
import matplotlib.pyplot as plt

from pscrub import Claim, Graph, Hypothesis, check_rewrites, scrub, unroll
from pscrub.graph import constant, equal_on, lookup_table
from pscrub.law import entropy_budget, law_of_f, scrubbed_expectation
from pscrub.questions import agreements
from pscrub.studies import load

# %% [markdown]
# ## The hash game
#
# The input is a number and a setting, EASY or HARD. What is asked for is the last bit of the number's hash. The
# model has no idea, so it guesses on EASY and says "I don't know" on HARD, where a wrong answer is ruinous.
#
# The false claim: on HARD it says the *true bit*. Scrubbed, the answer on a HARD number comes from another input of
# which the claim says the same: half the time an EASY one whose guess happens to be that bit.

# %%
study = load("hash_game")
exact, false, joined, nothing = study.hypotheses
result = scrub(study, draws=16_384)
found = agreements(study, result)
for each in found:
    interval = f"[{each.measured.low:.3f}, {each.measured.high:.3f}]"
    print(f"{each.hypothesis:24} {each.figure:16} formula {each.exact:9.3f}  draws {interval}  agrees: {each.agrees}")

# %% [markdown]
# The scrubbed model does a hundred times better than the model: right on half of the HARD cases, and never wrong.
# The law of the reward shows where that comes from.

# %%
laws = {h.name: law_of_f(unroll(h)) for h in (exact, false, joined)}
figure, axes = plt.subplots(figsize=(6, 2.8))
for i, (name, law) in enumerate(laws.items()):
    axes.bar([j + 0.25 * i for j in range(3)], [law.get(value, 0.0) for value in (0.0, 1.0, 100.0)], 0.25, label=name)
axes.set_xticks([0.25, 1.25, 2.25], ["0", "1: right on EASY", "100: right on HARD"])
axes.set_ylabel("probability")
axes.legend()
figure.tight_layout()
plt.show()

# %% [markdown]
# Any table of rewards gives the same story, with other numbers: the gain is a quarter of what EASY loses by not
# guessing plus what HARD gains by knowing.

# %%
other = {
    "easy_right": "3",
    "easy_wrong": "-1",
    "easy_unknown": "0.5",
    "hard_right": "7",
    "hard_unknown": "-2",
    "skill": "0.8",
}
rewards = {key: float(value) for key, value in other.items()}
model_value, false_value, joined_value, _ = (
    scrubbed_expectation(unroll(h)) for h in load("hash_game", other).hypotheses
)
guessing = rewards["skill"] * rewards["easy_right"] + (1 - rewards["skill"]) * rewards["easy_wrong"]
gain = (rewards["easy_unknown"] - guessing + rewards["hard_right"] - rewards["hard_unknown"]) / 4
print(f"model {model_value:.4f}, false claim {false_value:.4f}, gain by hand {gain:.4f}")

# %% [markdown]
# ## Joining what was left out
#
# The claim forgets that the answer also depends on the setting. *Joined* with that, which only forbids swaps, the
# answer on HARD is always "don't know", and the gain is gone. A comprehensive hypothesis is one that no further
# claim moves: the search for such claims is adversarial validation.

# %%
print(f"false {scrubbed_expectation(unroll(false)):.3f}, joined {scrubbed_expectation(unroll(joined)):.3f}")
budgets = {h.name: entropy_budget(unroll(h), bits=True).scrubbed for h in study.hypotheses}
print({name: f"{bits:.2f} bits" for name, bits in budgets.items()})

# %% [markdown]
# ## Explanations that cannot fail
#
# f may be replaced by anything equal to it on D. Taken to its end, by a *lookup table* of the whole input; or,
# where a model makes no mistake, by the *constant* 0. Both are accepted, since they are equal on every row:

# %%
table = lookup_table(exact.graph, "answer", exact.data)
print("lookup table:", equal_on(exact.graph, table, exact.data))

perfect = load("cancellation").hypotheses[0]
zero = constant(perfect.graph, "loss", 0.0)
print("constant:", equal_on(perfect.graph, zero, perfect.data))
print(
    [
        (check.kind, check.difference)
        for graph, data in ((table, exact.data), (zero, perfect.data))
        for check in check_rewrites(graph, data)
    ]
)

# %% [markdown]
# And both recover all of the loss. The entropy budget shows what they are worth. A table's claim permits no swap:
# no node loses anything, and the scrubbed inputs have the entropy of D, as if nothing had been scrubbed. Of a
# constant, every input is unimportant: all is lost at once, and nothing is said about the model.

# %%
setting = [Claim("bit", "exact"), Claim("hard", "exact")]
looked_up = Hypothesis("a table", table, exact.data, Claim("reward", reads=[Claim("answer", "exact"), *setting]))
same = Hypothesis("a constant", zero, perfect.data, Claim("loss", [0] * perfect.data.n))
trivial = {h.name: (scrubbed_expectation(unroll(h)), entropy_budget(unroll(h), bits=True)) for h in (looked_up, same)}
for name, (value, budget) in trivial.items():
    lost = sum(row.lost for row in budget.rows)
    print(
        f"{name:11} E_scrubbed {value:.4f}, H(scrubbed) {budget.scrubbed:.3f} bits, of D {budget.data:.3f}; "
        f"H(output) {budget.output:.3f}, lost at nodes {lost:.3f}"
    )

# %% [markdown]
# ## What has been shown

# %%
assert all(each.agrees for each in found)
E = {h.name: scrubbed_expectation(unroll(h)) for h in study.hypotheses}
assert abs(E[exact.name] - 0.25) < 1e-12 and abs(E[false.name] - 25.125) < 1e-12
assert abs(E[joined.name] - E[exact.name]) < 1e-12
assert result[false.name].recovered.low > 120
assert abs(false_value - model_value - gain) < 1e-12 and abs(joined_value - model_value) < 1e-12
assert abs(laws[false.name][100.0] - 0.25) < 1e-12 and 100.0 not in laws[joined.name]
assert budgets[false.name] > budgets[joined.name] > budgets[exact.name]

assert not equal_on(exact.graph, table, exact.data) and not equal_on(perfect.graph, zero, perfect.data)
value, budget = trivial["a table"]
assert abs(value - E[exact.name]) < 1e-12 and abs(budget.scrubbed - budget.data) < 1e-9
value, budget = trivial["a constant"]
assert value == 0 and budget.output == 0 and len(budget.rows) == 1
assert isinstance(zero, Graph)
