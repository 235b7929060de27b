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
# # From a model to a report: how much of its loss does an explanation recover?
#
# You have trained a network and believe that you know what its parts compute. Causal scrubbing puts that to a test:
# give each part *another* input, one that your explanation says is as good as its own, and see whether the model still
# works. If the explanation is right, the expected loss stays as it was (100 % recovered). If what you explained is as
# good as nothing, it becomes that of shuffled labels (0 %).
#
# This notebook takes a small network from training to a report that you can hand on. It runs in well under a minute.

# %%
import tempfile
from pathlib import Path

import torch
from torch import nn

import pscrub
from pscrub import Claim, Dataset, Hypothesis, Node, Study, scrub
from pscrub.graph import trace
from pscrub.questions import claim_costs
from pscrub.report import html, plots

# %% [markdown]
# ## A model
#
# Four numbers come in. The label is 1 if exactly one of `a > b` and `c > d` holds. The network has two branches, one
# for each pair, and a head that puts them together. (Real networks do not tell you so; here we know what to find.)


# %%
class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.left = nn.Sequential(nn.Linear(2, 16), nn.ReLU(), nn.Linear(16, 2))
        self.right = nn.Sequential(nn.Linear(2, 16), nn.ReLU(), nn.Linear(16, 2))
        self.head = nn.Sequential(nn.Linear(4, 32), nn.ReLU(), nn.Linear(32, 1))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(torch.cat([self.left(x[:, :2]), self.right(x[:, 2:])], 1))[:, 0]


def examples(n: int) -> tuple[torch.Tensor, torch.Tensor]:
    x = torch.randn(n, 4)
    return x, ((x[:, 0] > x[:, 1]) ^ (x[:, 2] > x[:, 3])).float()


def loss(out: torch.Tensor, label: torch.Tensor) -> torch.Tensor:
    return nn.functional.binary_cross_entropy_with_logits(out, label, reduction="none")


torch.manual_seed(0)
net = Net()
optimiser = torch.optim.Adam(net.parameters(), lr=0.01)
for _ in range(150):
    x, label = examples(256)
    value = loss(net(x), label).mean()
    optimiser.zero_grad()
    value.backward()
    optimiser.step()
x, label = examples(2000)
accuracy = float(((net(x) > 0) == label.bool()).float().mean())
print(f"loss {float(loss(net(x), label).mean().detach()):.3f}, accuracy {accuracy:.1%}")

# %% [markdown]
# ## The data, and the model as a graph
#
# The **dataset** is the distribution that inputs are drawn from and swapped within. Besides what the model reads it may
# have columns to speak of: here `close`, whether one of the two comparisons is a close call.
#
# `trace` turns the network into a **graph** of named pure functions. The cut points are the values that hypotheses can
# talk about; `behaviour` is the number whose expectation is to be kept, the loss.

# %%
closest = torch.minimum((x[:, 0] - x[:, 1]).abs(), (x[:, 2] - x[:, 3]).abs())
data = Dataset({"x": x, "label": label, "close": ["close call" if c < 0.3 else "clear" for c in closest.tolist()]})
graph = trace(
    net.eval(),
    data,
    cuts={"left": "left", "right": "right"},
    inputs=["x"],
    output="logit",
    behaviour=Node("loss", ("logit", "label"), loss),
)
graph

# %% [markdown]
# ## Three hypotheses
#
# A **claim** says where (a node of the graph) and what (a feature of the input): two inputs with the same feature may
# be swapped at that node. What no claim mentions is claimed not to matter. A hypothesis is a tree of claims from the
# loss down; the label is always its own.
#
# 1. *both comparisons*: `left` computes whether a > b, `right` whether c > d;
# 2. *left alone*: the same, and `right` does not matter;
# 3. *sign of a*: `left` looks at a alone.


# %%
def hypothesis(name: str, **features: torch.Tensor) -> Hypothesis:
    branches = [Claim(node, feature) for node, feature in features.items()]
    claims = [Claim("label", pscrub.EXACT), Claim("logit", reads=branches)]
    return Hypothesis(name, graph, data, Claim("loss", reads=claims))


a_b, c_d = x[:, 0] > x[:, 1], x[:, 2] > x[:, 3]
study = Study(
    "two comparisons",
    [
        hypothesis("both comparisons", left=a_b, right=c_d),
        hypothesis("left alone", left=a_b),
        hypothesis("sign of a", left=x[:, 0] > 0, right=c_d),
    ],
    by=["close"],
)
for each in study.hypotheses:
    each.check()

# %% [markdown]
# ## Scrubbing
#
# `draws` fixes how much to draw; leave it out and drawing goes on until each interval is one point wide. The interval
# is for the uncertainty of the draws: the data and the model are held fixed.

# %%
result = scrub(study, draws=10_000, seed=0)
result

# %%
plots.forest(result)

# %% [markdown]
# Both comparisons recover all of the loss; the other two do not. (A little over 100 % is no mistake: where the model
# itself errs, another row's values may err less.) But the expected loss is an average. The branches do not compute a
# *bit*: they are surer where a and b are far apart, so that a clear case may be given the values of a close call, and
# the other way round. Broken down by the column `close` (dotted: the loss of the model itself):

# %%
plots.by_group(result, "close")

# %% [markdown]
# The draw with the largest loss shows it: the row whose label counts, and the rows that the two branches were given in
# its place. One of them has c and d nearly equal:

# %%
worst = result["both comparisons"].draws.worst[0]  # the ten worst are kept
print(f"loss {worst.loss:.2f}")
for path, (row, values) in worst.data.items():
    print(f"{path:24} row {row:5}  x {values['x']}  {values['close']}")

# %% [markdown]
# ## Which claim is the weak one?
#
# `claim_costs` scrubs each claim alone, and all but each, on the same random numbers. Of *sign of a*, `right` alone
# costs nothing and `left` alone nearly everything: that is the claim to mend. (`logit` stands for what both determine.)

# %%
costs = claim_costs(study.hypotheses[2], draws=4000)
for cost in costs:
    alone = cost.alone
    print(f"{cost.claim:8} scrubbed alone: {alone.value:6.1f} % recovered  [{alone.low:.1f}, {alone.high:.1f}]")

# %% [markdown]
# ## More draws later, and a report
#
# A result holds its draws. Saved and loaded, it can go on where it ended: the same interval, tighter.

# %%
folder = Path(tempfile.mkdtemp())
result.save(folder / "result.nc")
more = scrub(study, draws=30_000, seed=0, after=pscrub.StudyResult.load(folder / "result.nc"))
more.save(folder / "result.nc")
for each in study.hypotheses:
    before, after = result[each.name].recovered, more[each.name].recovered
    print(f"{each.name:18} {before.width:.2f} points wide, now {after.width:.2f}: [{after.low:.2f}, {after.high:.2f}]")

# %% [markdown]
# The report is one HTML file: table, plots, sub-populations, where the swapped data came from, the worst draws,
# provenance. `pscrub run study.py --out DIR` writes the same from the command line, and `result.to_arviz()`,
# `to_xarray()` and `to_dataframe()` hand the draws to other tools.

# %%
report = html.write_page(more, folder)
print(f"{report.name}: {report.stat().st_size / 1000:.0f} kB")
more.to_dataframe()[["hypothesis", "recovered", "low", "high", "draws"]].round(2)

# %%
plots.convergence(more)

# %% [markdown]
# What was shown, as checks:

# %%
both, left, sign = (more[each.name].recovered for each in study.hypotheses)
assert accuracy > 0.95
assert both.low > left.high and both.low > sign.high  # the right explanation is the best of the three
alone = {cost.claim: cost.alone for cost in costs}
assert alone["right"].low > alone["left"].high  # what is wrong with the third
assert all(more[h.name].recovered.width < 0.7 * result[h.name].recovered.width for h in study.hypotheses)
