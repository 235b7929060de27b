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
# # What scrubbing does to the inputs: the most random law that keeps every node's inputs
#
# Causal scrubbing runs a model on a vector of inputs, one for every place where the treeified hypothesis reads the
# input. Two laws of that vector matter: the *f-consistent* one, where all places get the same row of the dataset $D$,
# and the *scrubbed* one. Section 5 of the causal scrubbing appendix says what the second is:
#
# - **Lemma 1.** At each node, the inputs have the same joint law in both.
# - **Theorem 2.** Of all laws with that property, the scrubbed one has the most entropy; no other has as much.
# - **Fun fact 3.** How much it has is read off $D$, one node at a time.
#
# `python -m theory` checks these on hundreds of random hypotheses. Here is one small hypothesis, in pictures.

# %%
import matplotlib.pyplot as plt
import numpy as np
import scipy.linalg
import scipy.optimize
import torch

from pscrub import Claim, Dataset, Graph, Hypothesis, unroll
from pscrub.law import Wire, certify, entropy_budget, list_constraints, log_prob, minimal_cuts, solve_newton

BLUE, ORANGE, GREEN, GREY = "#0072B2", "#E69F00", "#009E73", "#999999"  # told apart whatever one's colour vision
plt.rcParams.update({"figure.dpi": 110, "font.size": 10, "axes.spines.top": False, "axes.spines.right": False})

# %% [markdown]
# ## The hypothesis
#
# Six inputs, 0 to 5, the larger ones more frequent. The model computes a parity `a`, a half `b` (3 and above), from
# these `s`, whether they differ, and a remainder `t`; the output `f` puts `s` and `t` together and also reads `r`.
# The claim: `s` and `t` matter and `r` does not; `s` is made from `a` and `b`. Its tree has four leaves, so the
# scrubbed input is a vector of four rows: one each for `a`, `b` and `t`, and one for the unimportant `r`, written
# `~`.

# %%
data = Dataset({"x": torch.arange(6)}, weights=[1, 1, 2, 2, 3, 3])
graph = Graph.of(
    {
        "a": lambda x: x % 2,
        "b": lambda x: x // 3,
        "t": lambda x: x % 3,
        "r": lambda x: x,
        "s": lambda a, b: (a + b) % 2,
        "f": lambda s, t, r: 3 * s + t + 0 * r,
    },
    inputs=["x"],
    output="f",
)
a, b = Claim("a", lambda d: d["x"] % 2), Claim("b", lambda d: d["x"] // 3)
s = Claim("s", lambda d: (d["x"] % 2 + d["x"] // 3) % 2, reads=[a, b])
t = Claim("t", lambda d: d["x"] % 3)
hypothesis = Hypothesis("s and t", graph, data, Claim("f", reads=[s, t]))
tree = unroll(hypothesis)
print("leaves:", ", ".join(tree.leaves), "   minimal cuts:", sum(1 for _ in minimal_cuts(hypothesis)))

# %% [markdown]
# ## The law grows as the cut moves
#
# A cut parts the root from the leaves. Start with the wires into the root, `s` and `t`; then move the cut up through
# one node after the other. Each panel shows the joint law of the cut's wires: what lies on the side of `s` runs down,
# what lies on the side of `t` runs across. A dot marks what an f-consistent run can give, where all wires come from
# one row.
#
# At the root's inputs both laws are one, by Lemma 1. With each move the scrubbed law spreads over more, while the dots
# stay as few as the rows of $D$.

# %%
BITS = 1 / np.log(2)
weights = data.weights.numpy()
labels = {path: site.partition.labels.numpy() for path, site in tree.sites.items()}
MOVES = {
    "the inputs of f": [Wire("f/s"), Wire("f/t")],
    "through t": [Wire("f/s"), Wire("f/t", True)],
    "through s": [Wire("f/s/a"), Wire("f/s/b"), Wire("f/t", True)],
    "through a": [Wire("f/s/a", True), Wire("f/s/b"), Wire("f/t", True)],
    "through b": [Wire("f/s/a", True), Wire("f/s/b", True), Wire("f/t", True)],
}
DRAW, KEPT = Wire("f/~"), Wire("f/~", True)


def entropy(p):
    """In bits."""
    p = np.asarray(p)[np.asarray(p) > 0]
    return float(-(p * np.log(p)).sum() * BITS)


def consistent(found):
    """The f-consistent law [cells] of a cut's wires."""
    rows = np.flatnonzero(weights)
    seen = np.stack([rows if wire.datum else labels[wire.path][rows] for wire in found.cut], 1)
    place = {tuple(cell): i for i, cell in enumerate(found.cells.tolist())}
    law = np.zeros(len(found.cells))
    np.add.at(law, [place[tuple(cell)] for cell in seen.tolist()], weights[rows])
    return law


laws = {}
for name, wires in MOVES.items():
    found = list_constraints(hypothesis, (DRAW, *wires))
    laws[name] = (found, solve_newton(found).p, consistent(found))
found = list_constraints(hypothesis)
laws["through ~"] = (found, solve_newton(found).p, consistent(found))

# %%
sizes = [(2, 3), (2, 6), (4, 6), (12, 6), (36, 6)]
fig, axes = plt.subplots(
    1, 5, figsize=(11, 5.4), layout="constrained", gridspec_kw={"width_ratios": [0.75, 1, 1, 1, 1]}
)
for ax, (name, wires), (height, width) in zip(axes, MOVES.items(), sizes, strict=True):
    found, p, q = laws[name]
    values = {wire.path: found.cells[:, i] for i, wire in enumerate(found.cut)}
    left, right = [wire for wire in wires if wire.path != "f/t"], next(w for w in wires if w.path == "f/t")
    down = np.zeros(len(p), dtype=int)
    for wire in left:
        down = down * (6 if wire.datum else 2) + values[wire.path]
    table, dots = np.zeros((height, width)), np.zeros((height, width), dtype=bool)
    table[down, values["f/t"]] = p
    dots[down[q > 0], values["f/t"][q > 0]] = True
    shown = np.ma.masked_equal(table, 0)
    ax.imshow(shown / table.max(), aspect="auto", cmap="cividis_r", vmin=0, vmax=1)
    y, x = dots.nonzero()
    ax.plot(x, y, "o", ms=5 if height < 20 else 4, mfc="white", mec="black", mew=0.9)
    down_name = " × ".join(f"row of {w.path[-1]}" if w.datum else w.path[-1] for w in left)
    ax.set(title=name, xticks=[], yticks=[], xlabel="row of t" if right.datum else "t", ylabel=down_name)
    ax.spines[["top", "right"]].set_visible(True)
    ax.text(
        0.5,
        -0.1,
        f"{entropy(p):.2f} bits\nf-consistent {entropy(q):.2f}",
        transform=ax.transAxes,
        ha="center",
        va="top",
    )
_ = fig.suptitle(
    "The law of the cut's wires, as the cut moves up (darker: more probable; white: impossible; dots: f-consistent)"
)

# %% [markdown]
# The entropy of the cut's wires, step by step, the unimportant row last. What a step adds is what is lost at the node
# it passes through: the entropy of the node's inputs less that of its output, both under $D$. That is fun fact 3. The
# f-consistent law can never have more than the entropy of one row.

# %%
budget = entropy_budget(tree, bits=True)
lost = {row.path: row.lost for row in budget.rows}
steps = ["output", "f", "f/t", "f/s", "f/s/a", "f/s/b", "f/~"]
added = [budget.output, *(lost[path] for path in steps[1:])]
tops = np.cumsum(added)
h_scrubbed = [entropy(p) for _, p, _ in laws.values()]
h_consistent = [entropy(q) for _, _, q in laws.values()]

fig, ax = plt.subplots(figsize=(9, 4.2), layout="constrained")
ax.bar(range(7), tops - added, color="none", edgecolor=GREY, linewidth=0.8, linestyle=":")
ax.bar(range(7), added, bottom=tops - added, color=BLUE, label="added by this step: H(inputs) - H(output) under D")
ax.plot(
    range(1, 7), h_scrubbed, "D", color="black", ms=6, label="entropy of the law found from Lemma 1's equations alone"
)
ax.plot(range(1, 7), h_consistent, "o--", color=ORANGE, mec="black", ms=6, label="entropy of the f-consistent law")
for i, (top, more) in enumerate(zip(tops, added, strict=True)):
    ax.annotate(
        f"+{more:.2f}" if i else f"{more:.2f}", (i, top), xytext=(0, 7), textcoords="offset points", ha="center"
    )
ax.set_xticks(range(7), ["output", "inputs of f", "through t", "through s", "through a", "through b", "through ~"])
ax.set(ylabel="bits", ylim=(0, tops[-1] + 1), title="Entropy as the cut moves from the root to the leaves")
_ = ax.legend(frameon=False, loc="upper left")
# %% [markdown]
# ## The entropy budget
#
# The same numbers by node: what the node reads, split into what its output keeps and what it loses. What is lost,
# scrubbing makes up at random. A node that loses nothing, like `f` here, may as well be exact; one that keeps
# nothing, like `~`, is claimed not to matter at all.

# %%
rows = [next(row for row in budget.rows if row.path == path) for path in steps[1:]]
fig, ax = plt.subplots(figsize=(9, 3.4), layout="constrained")
place = np.arange(len(rows))[::-1]
kept = np.array([row.output for row in rows])
gone = np.array([row.lost for row in rows])
ax.barh(place, kept, color=GREEN, label="kept: H(output)")
ax.barh(place, gone, left=kept, color="white", edgecolor=BLUE, hatch="///", label="lost: H(inputs) - H(output)")
for y, k, g in zip(place, kept, gone, strict=True):
    ax.text(k + g + 0.04, y, f"{k:.2f} kept, {g:.2f} lost", va="center")
ax.set_yticks(place, [row.path for row in rows])
ax.set(
    xlabel="bits",
    xlim=(0, 4.5),
    title=f"H(scrubbed inputs) = {budget.output:.2f} + all that is lost = {budget.scrubbed:.2f} bits",
)
_ = ax.legend(frameon=False, loc="upper right")
# %% [markdown]
# ## Where the two laws sit
#
# All laws that meet Lemma 1 form a convex set. Take the cut through `s`, which leaves them four dimensions.
#
# To the left, a plane through the set: it holds the scrubbed law, the f-consistent law and a corner of the set, a third
# law that meets Lemma 1. Inside the outline all probabilities are at least 0. The colour is the entropy: the scrubbed
# law is on the top of the hill, the f-consistent law on the rim.
#
# To the right, the entropy on the straight way from one to the other, and past the scrubbed law as far as probabilities
# allow; and on ways from the scrubbed law in random directions that keep Lemma 1. All of them go down.

# %%
found, scrubbed, one_row = laws["through s"]  # few cells: four dimensions are left free
matrix = found.matrix.toarray()
cost = np.random.default_rng(5).standard_normal(len(scrubbed))
corner = scipy.optimize.linprog(cost, A_eq=matrix, b_eq=found.rhs, method="highs").x.clip(0)
first = one_row - scrubbed
first_length = np.linalg.norm(first)
first /= first_length
second = corner - scrubbed
second -= (second @ first) * first
second_length = np.linalg.norm(second)
second /= second_length

span = np.linspace(-2, 2, 801)
u, v = np.meshgrid(span * first_length, span * second_length)
plane = scrubbed + u[..., None] * first + v[..., None] * second
inside = plane.min(-1) >= -1e-12
with np.errstate(divide="ignore", invalid="ignore"):
    height = -np.where(plane > 0, plane * np.log(plane), 0).sum(-1) * BITS
height = np.ma.masked_where(~inside, height)

free = scipy.linalg.null_space(matrix)
rng = np.random.default_rng(0)


def way(direction):
    """Positions and entropies on a line through the scrubbed law, as far as probabilities allow."""
    with np.errstate(divide="ignore"):
        far = np.where(direction != 0, -scrubbed / direction, np.inf)
    low, high = far[direction > 0].max(), far[direction < 0].min()
    at = np.linspace(low, high, 201)
    return at, np.array([entropy(np.clip(scrubbed + k * direction, 0, None)) for k in at])


# %%
fig, (ax, side) = plt.subplots(1, 2, figsize=(11, 4.6), layout="constrained", gridspec_kw={"width_ratios": [1.15, 1]})
filled = ax.contourf(u, v, height, levels=14, cmap="cividis")
ax.contour(u, v, inside, levels=[0.5], colors="black", linewidths=1)
fig.colorbar(filled, ax=ax, label="entropy, bits", shrink=0.9)
second_at = ((corner - scrubbed) @ first, (corner - scrubbed) @ second)
for (x, y), marker, name, shift in (
    ((0, 0), "D", "scrubbed", (-22, 10)),
    ((first_length, 0), "o", "f-consistent", (10, -4)),
    ((first_length / 2, 0), "s", "half and half", (-24, -20)),
    (second_at, "^", "a corner", (10, 3)),
):
    ax.plot(x, y, marker, ms=8, mfc="white", mec="black")
    ax.annotate(
        name,
        (x, y),
        xytext=shift,
        textcoords="offset points",
        ha="left",
        bbox={"boxstyle": "round,pad=0.15", "fc": "white", "ec": "none", "alpha": 0.8},
    )
ax.set(
    xlabel="towards the f-consistent law",
    ylabel="across, towards the corner",
    title="A plane of laws that meet Lemma 1",
)
ax.set_aspect("equal")
y, x = np.nonzero(inside)
pad = 0.06
ax.set_xlim(u[0, x.min()] - pad, u[0, x.max()] + 3 * pad)
ax.set_ylim(v[y.min(), 0] - pad, v[y.max(), 0] + pad)

random_ways = []
for _ in range(12):
    direction = free @ (free.T @ (rng.standard_normal(len(scrubbed)) * scrubbed))
    random_ways.append(way(direction / np.linalg.norm(direction)))
    side.plot(*random_ways[-1], color=GREY, lw=1, label="random directions" if len(random_ways) == 1 else None)
straight = way(first)
side.plot(*straight, color=BLUE, lw=2.4, label="the way to the f-consistent law")
half = entropy((scrubbed + one_row) / 2)
for at, h, marker in (
    (0, entropy(scrubbed), "D"),
    (first_length, entropy(one_row), "o"),
    (first_length / 2, half, "s"),
):
    side.plot(at, h, marker, ms=8, mfc="white", mec="black")
side.set(
    xlabel="distance from the scrubbed law", ylabel="entropy, bits", title="Every way from the scrubbed law leads down"
)
_ = side.legend(frameon=False, loc="lower left")

# %% [markdown]
# The certificate needs no solver: the logarithm of the scrubbed law is a sum of functions of the single nodes'
# inputs, so it has the same mean under every law that meets Lemma 1, and that mean bounds their entropy. Half
# scrubbed and half f-consistent meets Lemma 1 just as exactly, and is refused.

# %%
at_leaves = list_constraints(hypothesis)
paths = [wire.path for wire in at_leaves.cut]
leaf_rows = torch.from_numpy(at_leaves.cells[:, [paths.index(path) for path in tree.leaves]])
log_p = log_prob(tree, leaf_rows).numpy()
right = certify(at_leaves, log_p)
wrong = certify(at_leaves, np.log(np.exp(log_p) / 2 + consistent(at_leaves) / 2))
for name, c in (("scrubbed", right), ("half f-consistent", wrong)):
    print(
        f"{name:18} Lemma 1 to {c.feasibility:.0e}; log p off the row space by {c.residual:.0e}; "
        f"{c.entropy * BITS:.3f} bits"
    )

# %% [markdown]
# ## The numbers

# %%
# Fun fact 3, at the leaves and at every cut on the way: the budget is the entropy of the law.
assert np.allclose(tops[1:], h_scrubbed, atol=1e-12) and abs(budget.scrubbed - h_scrubbed[-1]) < 1e-12
# Moving the cut never lowers the entropy, and the f-consistent law never has more than one row has.
assert (np.diff(tops) >= -1e-12).all() and max(h_consistent) <= budget.data + 1e-12
# At the root's inputs the two laws are one; at the leaves the scrubbed law has far more.
assert np.abs(laws["the inputs of f"][1] - laws["the inputs of f"][2]).max() < 1e-12
assert h_scrubbed[-1] - h_consistent[-1] > 4
# Lemma 1 at every cut, by both laws.
for each, p, q in laws.values():
    assert max(each.violations(p).values()) < 1e-12 and max(each.violations(q).values()) < 1e-12
# Theorem 2: certified, by the package's closed form; every way leads down; the plane has its top at the scrubbed law.
assert right.holds() and not wrong.holds() and wrong.feasibility < 1e-12 and wrong.entropy < right.entropy
for _, h in (straight, *random_ways):
    assert h.max() < entropy(scrubbed) + 1e-12 and (np.diff(h, 2) < 0).all()
assert height.max() < entropy(scrubbed) + 1e-12
