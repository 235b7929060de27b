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
# # Resampling, mean or zero: what should replace a part that is said not to matter?
#
# "This part does not matter" is tested by putting something else in its place: its value on another input
# (*resampling* ablation, what causal scrubbing does), its *mean*, or *zero*. The three are laws of what replaces a
# node, and one hypothesis object serves for all of them. The appendix of causal scrubbing (section 3) has three
# arguments against the latter two. Each is a small model here whose answers are known from a formula.

# %%
import matplotlib.pyplot as plt
import torch

from pscrub.questions import agreements, compare, compare_ablations
from pscrub.studies import load

# %% [markdown]
# ## Off the ring
#
# A module's activations lie on a ring. Downstream, the model adds something that vanishes on the ring, so the
# module does not matter, and to say so is true. Zero is not on the ring, and neither is the mean.

# %%
ring = load("ablation_ring")
(claim,) = ring.hypotheses
data = claim.data
points = claim.graph.run(["ring"], {"angle": data["angle"]})["ring"]
mean = (data.weights[:, None] * points).sum(0)

figure, axes = plt.subplots(figsize=(5.5, 3.6), layout="constrained")
axes.scatter(*points.T, marker="x", color="grey", label="activations")
axes.scatter(*mean, marker="s", color="green", s=60, label="mean")
axes.scatter(0, 0, marker="o", color="red", s=60, label="zero")
axes.set_aspect("equal")
axes.legend(loc="center left", bbox_to_anchor=(1, 0.5))
plt.show()

# %%
losses = compare_ablations(claim, draws=8192)
for kind, f, score in zip(losses.names, losses.f, losses.scores(), strict=True):
    print(
        f"{kind:10} E_scrubbed {float(f.mean()):.4f}, "
        f"{score.value:7.1f} % recovered [{score.low:.1f}, {score.high:.1f}]"
    )
step = compare(losses, "resampling", "mean").difference
print(f"mean less resampling, on the same draws: {step.value:.4f} [{step.low:.4f}, {step.high:.4f}]")

# %% [markdown]
# Resampling finds that all is recovered. The other two reject a true claim, for what the model does where it never
# is.
#
# ## Harm or help, by sub-population
#
# Now the model says more when the module is at its mean, a value that it never takes. On some inputs the model says
# too much, on others too little. The module does not matter on either side.

# %%
mean_study = load("ablation_mean")
by_side = {(each.figure, each.ablation): each for each in agreements(mean_study, draws=4096)}
for (figure_of, kind), each in by_side.items():
    print(f"{figure_of:28} {kind:10}  formula {each.exact:.4f}  draws {each.measured.value:.4f}  agrees: {each.agrees}")

# %% [markdown]
# Mean ablation makes the module look useful where the model says too much, and harmful where it says too little:
# which one is found depends on who was asked. Resampling says the same on both sides.
#
# ## The backup
#
# Three modules, of which the third stands in for the second once that gives zero, as after training with dropout.
# To say that the second does not matter is false: nothing else tells the model what it tells.

# %%
backup = load("ablation_backup")
scores = {}
for hypothesis in backup.hypotheses:
    found = compare_ablations(hypothesis, draws=8192)
    scores[hypothesis.name] = dict(zip(found.names, found.scores(), strict=True))
    print(hypothesis.name, {kind: f"{score.value:.1f} %" for kind, score in scores[hypothesis.name].items()})

# %% [markdown]
# Zero and mean ablation set the backup to work and find next to nothing missing: the false claim is vindicated.
# Resampling leaves the backup asleep, and half of the loss is lost.
#
# A claimed node can be replaced as well, by its mean within the block that the claim names. In the ring model `t`
# is claimed exactly, so that its blocks have one value each, and the mean within them changes nothing.

# %%
within_blocks = compare_ablations(claim, draws=8192, kinds=("resampling", "mean"), claimed=("loss/output/t",))

# %% [markdown]
# ## What has been shown

# %%
E_scrubbed = dict(zip(losses.names, losses.f.mean(1).tolist(), strict=True))
assert abs(E_scrubbed["resampling"] - 0.25) < 1e-9
assert E_scrubbed["mean"] > 3 and E_scrubbed["zero"] > 4
assert losses.scores()[0].value > 99.999 and losses.scores()[1].high < 0 and losses.scores()[2].high < 0

assert all(each.agrees for each in by_side.values())
usual = by_side["E_scrubbed where too high", "resampling"].exact
assert by_side["E_scrubbed where too high", "mean"].exact > usual > by_side["E_scrubbed where too low", "mean"].exact
assert by_side["E_scrubbed where too low", "resampling"].exact == usual

false_claim, true_claim = scores["M2 does not matter"], scores["M3 does not matter"]
assert false_claim["mean"].low > 99 and false_claim["zero"].low > 99
assert 48 < false_claim["resampling"].low < 50 < false_claim["resampling"].high < 52
assert all(abs(score.value - 100) < 1e-6 for score in true_claim.values())

assert torch.equal(within_blocks.f[1], losses.f[1])
