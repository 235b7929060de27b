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
# # What to measure: the mean, the whole distribution, or the output itself?
#
# Causal scrubbing compares the mean of f on D with its mean under the scrubbing law. Readers of the appendix asked
# whether that is enough: a model may keep its loss and become another function. Here are the alternatives side by
# side, on models whose answers are known.

# %%
import math

import matplotlib.pyplot as plt
import torch

from pscrub import Claim, Dataset, Graph, Hypothesis, scrub, unroll
from pscrub.graph import correlation
from pscrub.hypothesis import output_distance
from pscrub.law import scrubbed_expectation
from pscrub.questions import compare_distributions, exact_distances, output_distances
from pscrub.studies import load

# %% [markdown]
# ## The same loss by another function
#
# The model is sin x over whole periods and all labels are 0. Whatever x the sine is given, its mean square is 1/2:
# the randomised loss is the model's own, and loss recovered would divide by zero. pscrub says so.

# %%
study = load("sin_cos")
result = scrub(study, draws=8192)
result

# %% [markdown]
# The *output distance* compares the scrubbed output with the model's own on the same root datum. No labels are
# needed. It is an expectation under the same law, of another f, so it has an exact value too.

# %%
rows = []
for hypothesis in study.hypotheses:
    (measured,) = output_distances(hypothesis, draws=8192)
    exact = scrubbed_expectation(unroll(output_distance(hypothesis)))
    loss = scrubbed_expectation(unroll(hypothesis))
    rows.append((hypothesis.name, loss, exact, measured.estimate))
    low, high = measured.estimate.low, measured.estimate.high
    print(f"{hypothesis.name:46} loss {loss:.2f}, output distance {exact:.2f}, draws [{low:.3f}, {high:.3f}]")

# %% [markdown]
# The distance tells "x matters" from "x does not matter" at once. But it is no cure: the model sin + sin - sin,
# claimed to be its first term alone, moves no output as long as the two parts that cancel share a draw. What a
# claim leaves out can cancel in the output as well as in the loss.
#
# ## The whole distribution of f
#
# One may also compare f's distribution under D and under scrubbing: by the largest difference of the distribution
# functions (Kolmogorov-Smirnov), the area between them (Wasserstein), or the energy distance. D is known, so only
# draws are random: a p-value compares with as many draws from D itself.

# %%
whole = {}
for hypothesis in study.hypotheses[2:]:
    exact = exact_distances(hypothesis)
    print(hypothesis.name)
    for each in compare_distributions(hypothesis, draws=2048, resamples=199):
        whole[hypothesis.name, each.measure] = (exact[each.measure], each)
        interval = f"[{each.estimate.low:.3f}, {each.estimate.high:.3f}]"
        print(f"  {each.measure:20} exact {exact[each.measure]:.3f}, draws {interval}, p = {each.p:.3f}")

# %% [markdown]
# "x does not matter" leaves even the whole distribution of the loss as it was: only a comparison datum by datum
# sees it. In turn a whole distribution asks for more than a mean: a model's noise would have to be explained too.
# In the superposition study, the interference is noise. Its cost is kept exactly, and its distribution is not.

# %%
interference = load("superposition").hypotheses[1]
noise = exact_distances(interference)
kept = scrubbed_expectation(unroll(interference)) - scrubbed_expectation(unroll(load("superposition").hypotheses[0]))
print(
    f"difference of means {kept:.1e}, of distributions { ({name: round(value, 3) for name, value in noise.items()}) }"
)

# %% [markdown]
# ## Any f: the correlation of an activation with an angle
#
# f need not be a loss. A curve detector's claim is that a neuron's activation goes with the cosine between a
# curve's orientation and the preferred one. The correlation is the mean of f = z(activation) z(cosine).

# %%
steps, texture = (each.flatten() for each in torch.meshgrid(torch.arange(36), torch.arange(5), indexing="ij"))
angle = 2 * math.pi * steps.double() / 36
columns = {"angle": angle, "texture": texture.double(), "cosine": angle.cos()}
data = Dataset(columns)
functions = {
    "curve": lambda angle: torch.relu(angle.cos()),
    "grain": lambda texture: 0.2 * texture,
    "neuron": lambda curve, grain: curve + grain,
}
graph = correlation(Graph.of(functions, ["angle", "texture"], "neuron"), data, "neuron", "cosine")


def says(name: str, *parts: Claim) -> Hypothesis:
    neuron = Claim("neuron", reads=parts)
    return Hypothesis(name, graph, data, Claim("correlation", reads=[neuron, Claim("cosine", "exact")]))


facing = Claim("curve", lambda d: d["cosine"] > 0, words="on the preferred side")
detectors = [
    says("the angle", Claim("curve", "angle")),
    says("only its side", facing),
    says("grain", Claim("grain", "texture")),
]
correlations = {"everything": scrubbed_expectation(unroll(Hypothesis("", graph, data, Claim("correlation", "exact"))))}
correlations |= {h.name: scrubbed_expectation(unroll(h)) for h in detectors}

figure, axes = plt.subplots(figsize=(5, 2.5))
axes.barh(list(correlations), list(correlations.values()), color="steelblue")
axes.set_xlabel("correlation of the neuron with the cosine")
axes.invert_yaxis()
figure.tight_layout()
plt.show()

# %% [markdown]
# ## What has been shown

# %%
assert all(each.recovered is None for each in result.results)
assert [round(loss, 12) for _, loss, _, _ in rows] == [0.5, 0.5, 0.5, 0.5, 1.5]
assert [round(distance, 12) for _, _, distance, _ in rows] == [0.0, 1.0, 1.0, 0.0, 1.0]
assert all(abs(measured.value - distance) <= 6.5 * measured.se for _, _, distance, measured in rows)

assert all(exact < 1e-12 and each.p > 1e-3 for (name, _), (exact, each) in whole.items() if name == "x does not matter")
assert all(each.p == 0.005 for (name, _), (_, each) in whole.items() if name.endswith("drawn apart"))
assert abs(kept) < 1e-12 and noise["Wasserstein"] > 0.5

assert abs(correlations["the angle"] - correlations["everything"]) < 1e-12
assert correlations["everything"] > correlations["only its side"] > 0.5
assert abs(correlations["grain"]) < 1e-12
