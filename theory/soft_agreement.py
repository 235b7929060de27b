"""Bins with a random offset: near rows are swapped more often than far ones, and Lemma 1 is kept.

Statement (not in the paper). Let a row's position be its value in widths (or k times its rank), and let an offset U be
uniform on [0, 1). Rows agree at offset u if the whole parts of their positions less u are equal. Draw U once, then all
data by the algorithm at that offset. Then
  (a) given U, Lemma 1 holds for the interpretation that this offset makes; so in the mixture every datum has law D, and
      the inputs of every node, together with U, have their joint law under D and U;
  (b) rows whose positions are d apart agree with probability max(0, 1 - d);
  (c) a soft datum and its parent's have the law D(x) E[1(agree) D(y) / D(bin of x)]: symmetric, and 0 from d = 1 on;
  (d) the scrubbed inputs have no less entropy than at an offset on average.

Argument. (a) is lemma_1.py, offset by offset. (b) The whole parts differ iff one of the numbers u, u + 1, ... lies
between the positions (or on the greater), which for d < 1 has probability d. (c) is the draw within a block, averaged;
each term is symmetric in x and y. (d) Entropy is concave.
A kernel that takes near rows without such bins is another matter. Rows drawn by D times max(0, 1 - d), scaled to sum to
1 for each parent's row, do not have law D. A kernel made to keep D (Metropolis') still does not keep what a node's
inputs have to do with one another, as no bin is agreed on.

Routes. In rationals: U matters only through which positions' fractional parts it exceeds, so [0, 1) is cut there and
the algorithm enumerated on each piece. The package: its own hypotheses at an offset within each piece.

Planted faults. The two kernels, and an offset drawn anew for one site of a claim that has others; each where a
calculation with the datum and its parent's alone says that it shows.
"""

from __future__ import annotations

import itertools
import math
import random
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction

from pscrub import Hypothesis, unroll
from pscrub.data import Rounding
from pscrub.hypothesis import fix_offsets, give_features
from pscrub.law import leaf_law
from pscrub.law import lemma_1 as by_messages
from theory import brute
from theory.brute import Kernel, Law, Site
from theory.case import Case
from theory.cases import hypothesis, numbered, support
from theory.routes import Tried
from theory.table import Fault, Report, Route, progress

BOUND = 1e-12
MOST = 4000
"""Tuples of data in all pieces of a case together: it is what the enumeration costs."""
MOST_PLANTED = 40
STEPS = 8
"""Positions are multiples of 1 / STEPS, which floating point holds exactly."""


@dataclass(frozen=True, eq=False)
class Soft:
    """A case some of whose claims agree on bins.

    Args:
        case: the claims; of those with bins, and of what they determine, the values are those at no offset yet.
        features: positions of each row, one tuple for each random offset.
        cut: claim -> number of its feature; claims that read nothing.
    """

    case: Case
    features: tuple[tuple[Fraction, ...], ...]
    cut: Mapping[str, int]

    @property
    def pieces(self) -> list[tuple[Fraction, tuple[Fraction, ...]]]:
        """The probability of each piece, and an offset within it for each feature."""
        each = [_pieces(positions) for positions in self.features]
        return [(math.prod((p for p, _ in one), start=Fraction(1)), tuple(u for _, u in one)) for one in _all(each)]

    def at(self, offsets: Sequence[Fraction]) -> Case:
        """The ordinary case at given offsets: what reads a claim with bins has the value that its inputs determine."""
        made: dict[str, tuple[int, ...]] = {}

        def feature(name: str) -> tuple[int, ...]:
            said = self.case.claims[name]
            if name in self.cut:
                return bins(self.features[self.cut[name]], offsets[self.cut[name]])
            if not self.is_soft(name):
                return said.feature
            if name not in made:
                made[name] = numbered(list(zip(*(feature(read) for read in said.reads), strict=True)))
            return made[name]

        claims = {name: replace(said, feature=feature(name)) for name, said in self.case.claims.items()}
        return replace(self.case, claims=claims)

    def is_soft(self, name: str) -> bool:
        """Whether a claim has bins, or reads one that is soft."""
        return name in self.cut or any(self.is_soft(read) for read in self.case.claims[name].reads)

    def mixture(self) -> Hypothesis:
        """The same as the package's object, its offsets random."""
        hard = hypothesis(self.case)
        given = [Rounding([float(each) for each in positions], 1.0, "random") for positions in self.features]
        soft = [claim for claim in hard.claims if self.is_soft(claim.at)]
        return give_features(hard, {c: given[self.cut[c.at]] if c.at in self.cut else None for c in soft})

    def offsets_of(self, mixture: Hypothesis, offsets: Sequence[Fraction]) -> Hypothesis:
        """The package's hypothesis at given offsets, which it wants in the order in which it comes upon features."""
        order = dict.fromkeys(self.cut[claim.at] for claim in mixture.claims if claim.at in self.cut)
        return fix_offsets(mixture, [float(offsets[i]) for i in order])


def bins(positions: Sequence[Fraction], offset: Fraction) -> tuple[int, ...]:
    """The bin of each row, numbered by first appearance."""
    return numbered([math.floor(each - offset) for each in positions])


def _pieces(positions: Sequence[Fraction]) -> list[tuple[Fraction, Fraction]]:
    edges = sorted({Fraction(0), Fraction(1), *(each % 1 for each in positions)})
    return [(b - a, (a + b) / 2) for a, b in itertools.pairwise(edges)]


def _all(each: list[list[tuple[Fraction, Fraction]]]) -> Iterator[tuple[tuple[Fraction, Fraction], ...]]:
    return itertools.product(*each)


def soften(tried: Tried) -> Soft | None:
    """The case with bins at some claims that read nothing; None if it has too many tuples of data then."""
    rng, case = tried.rng("soft"), tried.case
    leaves = [name for name, said in case.claims.items() if not said.reads]
    several = 1 + (rng.random() < 0.4)
    chosen = rng.sample(leaves, rng.randint(1, len(leaves)))
    features = tuple(_positions(rng, case.x) for _ in range(several))
    soft = Soft(case, features, {name: rng.randrange(several) for name in chosen})
    if len({*soft.cut.values()}) < several:  # a feature that no claim has is none
        soft = Soft(case, features[:1], dict.fromkeys(chosen, 0))
    counted = 0
    for _, offsets in soft.pieces:
        counted += support(soft.at(offsets))
        if counted > MOST:
            return None
    return soft


def _positions(rng: random.Random, x: Sequence[int]) -> tuple[Fraction, ...]:
    where = {value: Fraction(rng.randrange(3 * STEPS), STEPS) for value in sorted(set(x))}
    return tuple(where[value] for value in x)


def triangle(a: Fraction, b: Fraction) -> Fraction:
    """The probability that two positions share a bin."""
    return max(Fraction(0), 1 - abs(a - b))


def scaled(d: Sequence[Fraction], positions: Sequence[Fraction]) -> Kernel:
    """A planted fault: rows by D times the triangle, scaled to sum to 1 for each row of the parent's."""
    kernel = []
    for a in positions:
        law = [p * triangle(a, b) for p, b in zip(d, positions, strict=True)]
        total = sum(law, Fraction(0))
        kernel.append(tuple(p / total if total else Fraction(0) for p in law))
    return tuple(kernel)


def metropolis(d: Sequence[Fraction], positions: Sequence[Fraction]) -> Kernel:
    """A planted fault: a row by D, taken with the probability that the triangle says, else the parent's own."""
    kernel = []
    for row, a in enumerate(positions):
        law = [p * triangle(a, b) for p, b in zip(d, positions, strict=True)]
        law[row] += 1 - sum(law, Fraction(0))
        kernel.append(tuple(law))
    return tuple(kernel)


def elsewhere(soft: Soft, site: Site, offsets: Sequence[Fraction]) -> Kernel:
    """A planted fault: agreement in bins of another offset than the claim's, the one that lies farthest off."""
    feature = soft.cut[site.claim or ""]
    others = [u for _, u in _pieces(soft.features[feature])]
    far = max(others, key=lambda u: abs(u - offsets[feature]))
    return brute.agreeing(brute.prior(soft.case), bins(soft.features[feature], far))


def shown_at(case: Case, site: Site, kernel: Kernel) -> frozenset[str]:
    """Nodes whose inputs are wrong if a datum is drawn by that kernel, by its law and its parent's alone."""
    d, plan = brute.prior(case), {each.path: each for each in brute.sites(case)}
    expected, value = brute.on_consistent_inputs(case), brute.values(case, site)
    pairs = [(x, y, d[x] * q) for x in range(len(d)) if d[x] for y, q in enumerate(kernel[x]) if q]
    parent = plan[site.parent or ""]
    place = parent.reads.index(site.path)

    def read(x: int, y: int) -> tuple[int, ...]:
        found = list(brute.inputs_on(case, plan, parent.path, x))
        found[place] = value[y]
        return tuple(found)

    own = brute.tally((brute.inputs_on(case, plan, site.path, y), p) for _, y, p in pairs)
    above = brute.tally((read(x, y), p) for x, y, p in pairs)
    wrong = {site.path: own != expected[site.path], parent.path: above != expected[parent.path]}
    return frozenset(path for path, is_wrong in wrong.items() if is_wrong)


def check(tries: Sequence[Tried], least: int = 20) -> Report:
    """What came of giving the cases bins with random offsets."""
    lemma = Route("Lemma 1 at each offset, in rationals", 0, "nodes")
    messages = Route("Lemma 1 at each offset, by the package's messages", BOUND, "nodes")
    datum = Route("the mixture: every datum has law D", 0, "data")
    kernel = Route("the mixture: rows agree with probability max(0, 1 - d)", 0, "pairs of rows")
    pair = Route("the mixture: law of a soft datum and its parent's", 0, "data")
    package = Route("the mixture: average of the package's laws at the offsets", BOUND)
    entropy = Route("the mixture: H(leaves) less the average, below 0", BOUND)
    routes = [lemma, messages, datum, kernel, pair, package, entropy]
    of_scaled = Fault("a scaled kernel in place of bins: the datum's law", least=least)
    of_kept = Fault("a kernel that keeps D in place of bins: Lemma 1", least=least)
    of_sites = Fault("an offset of its own for one site of a claim: Lemma 1", least=least)
    seen = 0
    for tried in progress(tries, "soft_agreement"):
        soft = soften(tried)
        if soft is None:
            continue
        seen += 1
        pieces = [(p, soft.at(offsets), offsets) for p, offsets in soft.pieces]
        laws = [brute.law(case) for _, case, _ in pieces]
        mixed = _mix((p, law) for (p, _, _), law in zip(pieces, laws, strict=True))
        for (_, case, _), law in zip(pieces, laws, strict=True):
            failing = brute.failing(case, brute.leaf_law(case, law or {}))
            for site in brute.sites(case):
                lemma.see(site.path in failing)
        for i, _ in enumerate(brute.sites(soft.case)):
            datum.see(_marginal(mixed, i) != _as_law(brute.prior(soft.case)))
        _see_kernels(soft, kernel)
        _see_pairs(soft, mixed, pair)
        of_leaves = brute.leaf_law(soft.case, mixed)
        _see_package(soft, of_leaves, messages, package)
        parts = [
            (p, brute.entropy(brute.leaf_law(case, law or {}))) for (p, case, _), law in zip(pieces, laws, strict=True)
        ]
        entropy.see(max(0.0, math.fsum(float(p) * h for p, h in parts) - brute.entropy(of_leaves)))
        _plant(soft, tried.rng("sites"), of_scaled, of_kept, of_sites)
    says = "at each offset Lemma 1 holds; the mixture keeps every datum's law, and near rows agree more often"
    return Report("Soft agreement", says, seen, routes, [of_scaled, of_kept, of_sites])


def _see_kernels(soft: Soft, route: Route) -> None:
    for positions in soft.features:
        pieces = [(p, bins(positions, u)) for p, u in _pieces(positions)]
        for a, b in itertools.combinations(range(len(positions)), 2):
            together = sum((p for p, labels in pieces if labels[a] == labels[b]), Fraction(0))
            route.see(together != triangle(positions[a], positions[b]))


def _see_pairs(soft: Soft, mixed: Law, route: Route) -> None:
    """The law of each soft datum and its parent's, from the enumeration and from (c)."""
    d, plan = brute.prior(soft.case), brute.sites(soft.case)
    paths = [site.path for site in plan]
    for i, site in enumerate(plan):
        if site.parent is None or site.claim not in soft.cut:
            continue
        at, positions = paths.index(site.parent), soft.features[soft.cut[site.claim]]
        found = brute.tally(((data[at], data[i]), p) for data, p in mixed.items())
        expected: dict[tuple[int, int], Fraction] = {}
        for length, u in _pieces(positions):
            labels = bins(positions, u)
            for x, y in itertools.product(range(len(d)), repeat=2):
                if labels[x] == labels[y] and d[x] * d[y]:
                    held = sum((p for p, label in zip(d, labels, strict=True) if label == labels[x]), Fraction(0))
                    expected[x, y] = expected.get((x, y), Fraction(0)) + length * d[x] * d[y] / held
        far = any(abs(positions[x] - positions[y]) >= 1 for x, y in found)
        route.see(found != expected or far or any(found.get((y, x)) != p for (x, y), p in found.items()))


def _see_package(soft: Soft, of_leaves: Law, messages: Route, average: Route) -> None:
    mixture, total = soft.mixture(), dict[tuple[int, ...], float]()
    order = brute.leaves(soft.case)
    for p, offsets in soft.pieces:
        tree = unroll(soft.offsets_of(mixture, offsets))
        for row in by_messages(tree):
            messages.see(max(row.inputs, row.datum))
        places = [tree.leaves.index(path) for path in order]
        for data, q in leaf_law(tree).as_dict().items():
            key = tuple(data[i] for i in places)
            total[key] = total.get(key, 0.0) + float(p) * q
    average.see(max(abs(total.get(data, 0.0) - float(of_leaves.get(data, 0))) for data in {*total, *of_leaves}))


def _plant(soft: Soft, rng: random.Random, of_scaled: Fault, of_kept: Fault, of_sites: Fault) -> None:
    """Each fault at one soft site, at a piece where it must show."""
    d, plan = brute.prior(soft.case), brute.sites(soft.case)
    sites = [site for site in plan if site.parent and site.claim in soft.cut]
    if not sites:
        return
    site = rng.choice(sites)
    positions = soft.features[soft.cut[site.claim or ""]]
    wrong = scaled(d, positions)
    after = tuple(sum((p * wrong[x][y] for x, p in enumerate(d)), Fraction(0)) for y in range(len(d)))
    if after != d and of_scaled.planted < MOST_PLANTED:
        mixed = _mix((p, brute.law(soft.at(offsets), {site.path: wrong})) for p, offsets in soft.pieces)
        if mixed:
            of_scaled.see(_marginal(mixed, plan.index(site)) != _as_law(d))
    for fault in (of_kept, of_sites):
        for _, offsets in soft.pieces:
            case = soft.at(offsets)
            faulty = metropolis(d, positions) if fault is of_kept else elsewhere(soft, site, offsets)
            must = shown_at(case, site, faulty)
            if must and fault.planted < MOST_PLANTED:
                law = brute.law(case, {site.path: faulty})
                if law is not None:
                    fault.see(must <= set(brute.failing(case, brute.leaf_law(case, law))))
                break


def _mix(parts: Iterator[tuple[Fraction, Law | None]]) -> Law:
    return brute.tally((data, p * q) for p, law in parts for data, q in (law or {}).items())


def _marginal(law: Law, place: int) -> Law:
    return brute.tally(((data[place],), p) for data, p in law.items())


def _as_law(d: Sequence[Fraction]) -> Law:
    return {(row,): p for row, p in enumerate(d) if p}
