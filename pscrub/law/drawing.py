"""The scrubbing law as a generative program in Pyro. Everything that pscrub draws is drawn here."""

from __future__ import annotations

import itertools
import zlib
from collections.abc import Callable, Mapping
from contextlib import nullcontext
from typing import Any

import numpy as np
import pyro
import torch
from pyro.distributions import Categorical, TorchDistribution
from torch import Tensor
from torch.distributions import constraints

from pscrub.data.blocks import BlockTable, gather
from pscrub.data.partition import Partition
from pscrub.errors import StudyError
from pscrub.hypothesis.tree import Site, Tree
from pscrub.workers import give_back

Model = Callable[..., dict[str, Tensor]]
FEW = 20
"""Sites that are enumerated each in a tensor dimension of its own; torch has 64 of them, 25 on CUDA."""
TABLES = 2**30
"""Bytes of tables that a program holds. Those past it are made each time one is drawn from."""
MADE = 256
"""Tables that are made before the memory that this took is given back."""


class Datum(TorchDistribution):
    """The law of a datum: a row of D, restricted to the block that holds the parent's datum.

    With `blocks` of shape [...], a sample is int64 [...]: a row's index. The parent's own row may come back.

    Args:
        partition: what the datum and its parent's agree on.
        blocks: int64 [...], the block to draw from, of positive weight. Left out: all of D.
        table: the partition's table, on the device where draws are made.
        generator: the source of randomness; torch's global one by default, as with any Pyro distribution.
        logits: gives a Categorical instead: Pyro rebuilds a distribution from the logits of an enumerated marginal by
            calling its type so.
    """

    arg_constraints: dict[str, Any] = {}  # noqa: RUF012 - torch's protocol
    support = constraints.nonnegative_integer
    has_enumerate_support = True

    def __new__(cls, *args: Any, logits: Tensor | None = None, **kwargs: Any) -> Any:
        return super().__new__(cls) if logits is None else Categorical(logits=logits)

    def __init__(
        self,
        partition: Partition,
        blocks: Tensor | None = None,
        table: BlockTable | None = None,
        generator: torch.Generator | None = None,
    ) -> None:
        self.partition, self.blocks = partition, blocks
        self.table = partition.table if table is None else table
        self.generator = generator
        super().__init__(blocks.shape if blocks is not None else torch.Size(), validate_args=False)

    def expand(self, batch_shape: Any, _instance: Any = None) -> Datum:
        """The same law, independently for each entry of a larger batch shape."""
        blocks = (
            torch.zeros((), dtype=torch.int64, device=self.table.rows.device) if self.blocks is None else self.blocks
        )
        partition = _merge_blocks(self.partition) if self.blocks is None else self.partition
        table = partition.table.to(blocks.device) if self.blocks is None else self.table
        return Datum(partition, blocks.expand(torch.Size(batch_shape)), table, self.generator)

    def sample(self, sample_shape: Any = torch.Size()) -> Tensor:  # noqa: B008 - torch's signature
        """int64 [*sample_shape, *batch_shape]: rows of D, each in its block."""
        if self.blocks is None:
            return self.expand(self.batch_shape).sample(sample_shape)
        # The parent's own row may come back. To leave it out would break Lemma 1 where D is not uniform, as the datum
        # would no longer be distributed as D, and lower the entropy where it is.
        shape = self._extended_shape(torch.Size(sample_shape))
        uniform = torch.rand(shape, dtype=torch.float64, device=self.blocks.device, generator=self.generator)
        return self.table.pick(self.blocks.expand(shape), uniform)

    def log_prob(self, value: Tensor) -> Tensor:
        """float64, value's and the batch's shapes broadcast: log-probability of each row, -inf outside the block."""
        device = value.device
        weight = self.partition.weights.to(device)[value].log()
        if self.blocks is None:
            return weight
        block = self.partition.labels.to(device)[value]
        inside = weight - self.partition.block_weights.to(device)[block].log()
        return torch.where((block == self.blocks) & (weight > -torch.inf), inside, -torch.inf)

    def enumerate_support(self, expand: bool = True) -> Tensor:
        """int64 [N, *batch_shape] (or [N, 1, ...] if not expanded): every row of D."""
        rows = torch.arange(len(self.partition.labels), device=self.table.rows.device)
        rows = rows.reshape(-1, *(1,) * len(self.batch_shape))
        return rows.expand(-1, *self.batch_shape) if expand else rows


def program(
    tree: Tree,
    device: torch.device | str = "cpu",
    generator: torch.Generator | Callable[[str], torch.Generator] | None = None,
) -> Model:
    """The generative program of a hypothesis: an ordinary Pyro model of the data that scrubbing gives to each site.

    `model(draws, given=None)` runs under a plate "draws" and returns path -> int64 [draws], rows of D. One sample site
    for each tree node and each draw of unimportant inputs, named by its path. Each site is independent of all others
    given its parent. `given` fixes sites (stratified roots), as `pyro.condition` does.

    To use the data in a larger model, call `model(1)` under a plate of your own. Enumerated trees of more than FEW
    sites use tensor dimensions again: condition their sites, but add no evidence on what is returned, nor `do`.

    Source: section 2 of the causal scrubbing post's algorithm, unrolled; appendix 4.1 for unimportant inputs.

    Args:
        tree: the treeified hypothesis.
        device: where rows are drawn.
        generator: the source of randomness, on that device, or one for each site by its path; torch's global one by
            default.

    >>> from pscrub.data.dataset import Dataset
    >>> from pscrub.graph.graph import Graph
    >>> from pscrub.hypothesis.claim import Claim
    >>> from pscrub.hypothesis.hypothesis import Hypothesis
    >>> from pscrub.hypothesis.tree import unroll
    >>> data = Dataset({"x": torch.arange(4)})
    >>> graph = Graph.of({"s": lambda x: x % 2, "f": lambda s: s * 1.0}, inputs=["x"], output="f")
    >>> parity = Claim("s", lambda d: d["x"] % 2)
    >>> model = program(unroll(Hypothesis("parity", graph, data, Claim("f", reads=[parity]))))
    >>> drawn = pyro.poutine.trace(model).get_trace(1000)
    >>> bool((drawn.nodes["f"]["value"] % 2 == drawn.nodes["f/s"]["value"] % 2).all())
    True
    """
    tables: dict[int, BlockTable] = {}
    labels: dict[int, Tensor] = {}
    made = itertools.count(1)

    def tidy() -> None:
        """After a table was made: glibc before 2.38 hardly uses again what aligned memory leaves when it is freed."""
        if next(made) % MADE == 0:
            give_back()

    whole, held = tree.whole, 0
    for partition in {id(p): p for p in (whole, *(site.partition for site in tree.sites.values()))}.values():
        labels[id(partition)] = partition.stored.to(device)
        if held < TABLES:
            tables[id(partition)] = partition.table.to(device)
            held += partition.table.bytes
            tidy()

    def table(partition: Partition) -> BlockTable:
        if id(partition) in tables:
            return tables[id(partition)]
        tidy()
        return BlockTable.of(partition.stored, partition.weights).to(device)

    def law(site: Site, parent: Tensor | None) -> Datum:
        source = generator(site.path) if callable(generator) else generator
        # The root's datum is drawn from D, and so are unimportant inputs, which agree with nothing (4.1).
        if parent is None:
            return Datum(whole, torch.zeros((), dtype=torch.int64, device=device), table(whole), source)
        own = gather(labels[id(site.partition)], parent).long()
        return Datum(site.partition, own, table(site.partition), source)

    def model(draws: int, given: Mapping[str, Tensor] | None = None) -> dict[str, Tensor]:
        data, fixed = dict[str, Tensor](), given or {}
        # An enumerated site takes a tensor dimension. As a site depends on its parent alone, a step of a Markov chain
        # from each to its children lets dimensions of all that came before be used again. One messenger, entered anew
        # at each depth: it stands once in Pyro's stack, so that a site's cost does not grow with its depth.
        step = pyro.markov() if len(tree.sites) > FEW else nullcontext()
        # Depth first, by a stack, as a chain of claims may be longer than Python recurses; None ends a site's step.
        waiting: list[Site | None] = [site for site in reversed([*tree.sites.values()]) if site.parent is None]
        with pyro.plate("draws", draws, device=str(device)):
            while waiting:
                site = waiting.pop()
                if site is None:
                    step.__exit__(None, None, None)
                    continue
                step.__enter__()
                # The algorithm passes a datum on: given that of the parent, neither the grandparent's nor a sibling's
                # says more. Theorem 2 rests on this independence.
                parent = None if site.parent is None else data[site.parent]
                obs = fixed.get(site.path)
                infer: Any = {"enumerate": "parallel"} if obs is None else {}
                data[site.path] = pyro.sample(site.path, law(site, parent), obs=obs, infer=infer)
                waiting += [None, *reversed(tree.children(site.path))]
        return data

    return model


def draw(tree: Tree, draws: int, seed: tuple[int, ...], stratified: bool = True) -> dict[str, Tensor]:
    """path -> int64 [draws]: rows of D from the generative program, with a seed of their own.

    Drawn on the CPU whatever the device of the model, so that a seed means the same data everywhere. Torch's global
    generator is not touched.

    Args:
        tree: the treeified hypothesis.
        draws: how many; even if stratified.
        seed: integers that name this set of draws; another tuple is an independent set.
        stratified: draw root data from draws / 2 equally likely strata of D, two in each, one after the other.

    Raises:
        StudyError: a negative seed.
    """
    if min(seed) < 0:
        raise StudyError(f"seed is {min(seed)}; expected 0 or more")
    generator = make_generator(seed)
    # On the CPU: a generator gives other numbers on each kind of device.
    model = program(tree, generator=generator)
    # Stratified, the mean of f loses the variance that the root's datum explains, and no more than that changes: the
    # root stays distributed as D, and all else is drawn given it.
    given = {tree.root: stratified_rows(tree.seen, draws // 2, generator)} if stratified else {}
    with pyro.poutine.block():
        return model(draws, given)


def draw_alike(tree: Tree, strata: Partition, draws: int, seed: tuple[int, ...]) -> dict[str, Tensor]:
    """path -> int64 [draws]: as `draw`, from random numbers that trees drawn with the same seed and strata share.

    Root data are the same, and sites of one path, drawn from equal blocks, are given equal data. Each tree's draws
    follow its own program.

    Args:
        tree: one of several on the same data.
        strata: whose blocks lie side by side in the strata of the root's datum: what all the trees' `seen` refine to.
        draws: how many; even.
        seed: integers that name this set of draws.
    """

    def source(path: str) -> torch.Generator:
        return make_generator((*seed, 1 + zlib.crc32(path.encode())))

    # A generator for each path: sites of one path take the same numbers, whatever sites the trees have besides.
    rows = stratified_rows(strata, draws // 2, make_generator((*seed, 0)))
    with pyro.poutine.block():
        return program(tree, generator=source)(draws, {tree.root: rows})


def stratified_rows(partition: Partition, strata: int, generator: torch.Generator) -> Tensor:
    """int64 [2 * strata]: rows of D, two drawn independently from each of equally likely strata, pair by pair.

    The strata cut the rows, sorted by block, into pieces of equal weight (a row may be cut). Uniform D and strata a
    multiple of N: each row equally often.

    Args:
        partition: rows of one block lie side by side, so that a stratum holds few blocks.
        strata: how many pieces.
        generator: the source of randomness.
    """
    # Two in each stratum, as from one alone its variance could not be estimated.
    place = torch.arange(strata).repeat_interleave(2) + torch.rand(2 * strata, dtype=torch.float64, generator=generator)
    rows, edges = partition.table.rows, partition.edges
    if edges is None:
        return rows[(place * (len(rows) / strata)).long().clamp(max=len(rows) - 1)].long()
    return rows[torch.searchsorted(edges, place * (edges[-1] / strata), right=True).clamp(max=len(rows) - 1)].long()


def make_generator(seed: tuple[int, ...]) -> torch.Generator:
    """A generator on the CPU, named by integers."""
    state = np.random.SeedSequence(seed).generate_state(1, np.uint64)[0]
    return torch.Generator().manual_seed(int(state >> 1))


def _merge_blocks(partition: Partition) -> Partition:
    return Partition(torch.zeros_like(partition.labels), partition.weights)
