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
# # A model whose circuit is known
#
# Of a trained network nobody knows beforehand which explanation is true, so that a method which judges explanations
# cannot be judged itself. Tracr turns that round: it *compiles* a program, written in the language RASP, into the
# weights of a transformer. Which variable reads which is then known, from the program.
#
# Here causal scrubbing is held against that. The program's circuit has to recover everything. Without any one of its
# edges something has to be lost. And each other edge that the model has, through its residual stream, has to be
# replaceable without any change.

# %%
import matplotlib.pyplot as plt
import torch

from pscrub import EXACT, Claim, Hypothesis, scrub
from pscrub.hypothesis import Study
from pscrub.report import measures
from pscrub.studies import load
from pscrub.studies.compiled.circuits import Edge, claim_all_but, list_edges
from pscrub.studies.compiled.ladder import ALL_BUT, WITHOUT, Ladder
from pscrub.studies.compiled.measured import count_edge
from pscrub.studies.compiled.model import load_program

program = load_program("sort_unique")
ladder = Ladder(program)
graph, data = ladder.graph, ladder.data
print(program.text)
print(data)

# %% [markdown]
# `sort_unique` sorts sequences of different digits. A first head counts, at each place, how many tokens are smaller:
# that is the place where the token belongs, `target_pos`. A second head then looks, from each place, for the token
# whose `target_pos` that place is, and copies it. D is every sequence of up to four of the digits 0 to 4.
#
# What both heads look at, for one sequence:

# %%
row = [program.text_of(row) for row in range(data.n)].index("3142")
values = graph.run(graph.nodes, {name: data[name][[row]] for name in graph.inputs})
print("answer:", [program.answers[place] for place in values["answer"][0].tolist()])
print("target_pos:", program.values["target_pos"][row].tolist())

labels = [program.tokens[token] for token in data["sequence"][row].tolist()]
figure, both = plt.subplots(1, 2, figsize=(8, 3.4), layout="constrained")
for axes, component in zip(both, (program.components[0], program.components[2]), strict=True):
    query, key = values[f"{component.name}.q"][0], values[f"{component.name}.k"][0]
    axes.imshow((query @ key.T / component.divisor).softmax(1), cmap="Blues", vmin=0, vmax=1)
    axes.set(xticks=range(5), yticks=range(5), xticklabels=labels, yticklabels=labels)
    axes.set(title=component.name, xlabel="looks at", ylabel="from")

# %% [markdown]
# ## Edges
#
# Each part of each component may read all that was written to the residual stream before it. Some of these edges the
# program says; they are the circuit. The others are there too, and nothing in the graph tells them apart.

# %%
for edge in list_edges(program):
    print(f"{edge!s:40}", "the program" if edge in ladder.true else "")

# %% [markdown]
# ## Two claims by hand
#
# `sort`, claimed as the program has it: its keys are `target_pos`, its values the tokens. Two sequences may be swapped
# at `target_pos` if their values of it agree, wherever else they differ. All that no claim speaks of is another row's.
#
# And one edge alone, the rest being exact: `sort.k` is claimed to need everything but `target_pos`.

# %%
where = Claim("target_pos", program.values["target_pos"], words="target_pos")
keys = Claim("sort.k", reads=[where])
carried = Claim("sort.v", reads=[Claim("tokens", EXACT)])
length = Claim("kept", "length")
sort = Claim("sort", program.values["sort"], reads=[keys, carried, length], words="sort")
answer = Claim("answer", reads=[Claim("output", program.values["sort"], reads=[sort], words="sort"), length])
by_hand = Hypothesis("sort as the program has it", graph, data, Claim("loss", reads=[Claim("right", "right"), answer]))

nothing = torch.zeros(data.n)
false = claim_all_but(program, Edge("sort.k", "target_pos"), nothing)
missing = Hypothesis("all but sort.k <- target_pos", graph, data, false)
result = scrub(Study("by hand", [by_hand, missing], labels=("right",)), draws=2048)
result.table

# %% [markdown]
# ## The ladder
#
# The shipped study, `pscrub run compiled -P program=sort_unique --measures`, has a row for each edge. The loss is the
# share of wrong answers.
#
# - **1** the program's circuit, by values and by edges;
# - **2** the same without one of its edges;
# - **3** everything but one of the other edges, the rest being exact;
# - **4** controls: as many random edges; the program's edges, each from another variable; the program, its values
#   shuffled over the sequences.

# %%
study = load("compiled", {"program": "sort_unique"})
result = scrub(study, draws=4096)
measures(study, result)

# %% [markdown]
# ## Jointly
#
# Six edges are each said to be noticed. For all six to be so together at 99.99 %, each interval has to hold at
# 1 - 0.0001/6 (Bonferroni). None comes near 100 % recovered.

# %%
rows = [each for each in study.hypotheses if each.name.startswith(WITHOUT)]
jointly = scrub(Study("jointly", rows, labels=("right",)), draws=4096, level=1 - 1e-4 / len(rows))
jointly.table

# %% [markdown]
# ## Every pair of sequences
#
# D is so small that nothing need be drawn: each edge's value can be replaced by that of each other sequence. The
# colour is the share of pairs in which an answer becomes another one; the program's edges are framed.

# %%
counted = {edge: count_edge(ladder, edge) for edge in list_edges(program)}
readers = list(dict.fromkeys(edge.reader for edge in counted))
sources = list(dict.fromkeys(edge.source for edge in counted))
shares = torch.full((len(readers), len(sources)), torch.nan)
figure, axes = plt.subplots(figsize=(6, 4), layout="constrained")
for edge, each in counted.items():
    y, x = readers.index(edge.reader), sources.index(edge.source)
    shares[y, x] = each.noticed / each.pairs
    if edge in ladder.true:
        axes.add_patch(plt.Rectangle((x - 0.45, y - 0.45), 0.9, 0.9, fill=False, ec="C3", lw=2))
axes.imshow(shares, vmin=0, vmax=1, cmap="Blues", aspect="auto")
axes.set(xticks=range(len(sources)), yticks=range(len(readers)), xticklabels=sources, yticklabels=readers)
print("largest change of an output by an edge that is not the program's:", max(counted[e].moved for e in ladder.others))

# %% [markdown]
# ## What it shows
#
# - **A true circuit is not rejected**: 100 % recovered, no answer another one, in every draw.
# - **Each true edge is missed** where it is left out, and **each other edge is forgiven**: over all pairs of sequences
#   the output does not move by a single bit.
# - **Noticing is not the same as losing everything.** Without `target_pos.share.k <- tokens` over a third of the loss
#   is still recovered: another sequence's tokens often serve as well.
# - **What it does not show**: that trained networks are like this. Compiled weights are sparse and clean, each variable
#   has directions of its own, and nothing but the circuit does anything.

# %%
recovered = {each.hypothesis: each.recovered.value for each in result.results}
assert result.results[0].model.value == 0
assert all(recovered[name] == 100 for name in recovered if name.startswith(("1", ALL_BUT)))
assert all(each.scrubbed.low > 0.1 and each.recovered.high < 60 for each in jointly.results)
assert all(counted[edge].noticed > 0 for edge in ladder.true) and len(ladder.true) == 6
assert all(counted[edge].noticed == 0 == counted[edge].moved for edge in ladder.others) and len(ladder.others) == 12
assert max(recovered[name] for name in recovered if name.startswith("4")) < 10
