"""Random cases for the oracle, all of them well formed."""

import itertools
import random
from dataclasses import replace
from functools import cache

from tests.routes.oracle import (
    Case,
    CaseClaim,
    GraphNode,
    Polynomial,
    distribution_of_f,
    law,
    prior,
    reads_through,
    treeify,
    unimportant,
    values,
)

MODES = ("reader", "all", "each", "groups")
PER_MODE = 32
MOST = 30_000  # tuples of rows, so that a faulty law, which may reach them all, can be listed too


def support_size(case: Case) -> int:
    """The number of tuples of data of positive probability, counted without listing them."""
    possible = [row for row, p in enumerate(prior(case)) if p]
    plan = treeify(case)

    def below(path: str, claim: str, row: int) -> int:
        count = 1
        for read in case.claims[claim].reads:
            labels = case.claims[read].feature
            count *= sum(below(f"{path}/{read}", read, other) for other in possible if labels[other] == labels[row])
        return count

    drawn = sum(below(case.root, case.root, row) for row in possible)
    return drawn * len(possible) ** sum(site.claim is None for site in plan)


def _random_graph(rng: random.Random, columns: tuple[str, ...], n: int) -> dict[str, GraphNode]:
    nodes: dict[str, GraphNode] = {}
    for k in range(n):
        known = [*columns, *nodes][-4:]
        inputs = rng.sample(known, min(len(known), rng.choice((1, 2, 2, 3))))
        if k == n - 1:  # every node is read by someone
            inputs = [*{*inputs, *(m for m in nodes if not any(m in other.inputs for other in nodes.values()))}]
            inputs.sort()
        exponents = [tuple(rng.choice((0, 1, 1, 2)) for _ in inputs) for _ in range(rng.choice((1, 2, 3)))]
        exponents += [tuple(int(i == j) for j in range(len(inputs))) for i in range(len(inputs))]
        terms = tuple((rng.choice((-2, -1, 1, 2, 3)), powers) for powers in exponents)
        nodes[f"n{k}"] = GraphNode(tuple(inputs), Polynomial(terms, 0 if k == n - 1 else rng.choice((2, 3, 5))))
    return nodes


def _random_claims(rng: random.Random, graph: Case, stop: float) -> dict[str, CaseClaim]:
    """Claims about the output and what lies below it: one at most about a graph node, for c is injective."""
    nodes, n = graph.nodes, len(graph.rows)
    behind: dict[str, set[str]] = {}  # all that a node reads through others
    for name, node in nodes.items():
        behind[name] = {*node.inputs}.union(*(behind.get(read, ()) for read in node.inputs))
    names: dict[str, str] = {}
    claims: dict[str, CaseClaim] = {}

    def claim_about(node: str, depth: int) -> str:
        if node in names:
            return names[node]
        names[node] = name = f"u{len(names)}"
        reads: list[str] = []
        if node in nodes and depth and (len(names) == 1 or rng.random() >= stop):
            near = nodes[node].inputs
            far = [i for i in (*graph.columns, *nodes) if i not in near and i in behind[node]]
            wanted = [i for i in near if rng.random() < 0.6] + [i for i in far if rng.random() < 0.2]
            rng.shuffle(wanted)
            reads = [claim_about(i, depth - 1) for i in wanted if reads_through(graph, node, i, wanted)]
        labels = range(rng.choice((1, 2, 2, 3, 3, n)))
        feature = tuple(rng.choice(labels) for _ in range(n))
        if reads:  # a function of what is read
            read = list(zip(*(claims[child].feature for child in reads), strict=True))
            meaning = {labels: rng.randrange(1 + len(set(read))) for labels in sorted(set(read))}
            feature = tuple(meaning[labels] for labels in read)
        claims[name] = CaseClaim(node, feature, tuple(reads), rng.choice(("direct", "any", "any")))
        return name

    claim_about([*nodes][-1], rng.randint(1, 4))
    return claims


def _depth(claims: dict[str, CaseClaim], name: str = "u0") -> int:
    return max((1 + _depth(claims, read) for read in claims[name].reads), default=0)


def random_case(rng: random.Random, sharing: str = "reader", size: int = 2000, stop: float = 0.3) -> Case:
    """A well-formed case of 2 to 10 leaves and depth at most 4, whose law has at most `size` tuples of data.

    `sharing` is "reader", "all", "each" or "groups"; `stop` is the probability that a claim about a node reads nothing.
    """
    least_leaves, least_depth = rng.choice((2, 3, 4, 5, 6, 8, 10)), rng.choice((1, 2, 2, 3, 4))
    copies = sharing in ("reader", "each") and rng.random() < 0.5
    for tries in itertools.count():
        columns = tuple(f"x{i}" for i in range(rng.choice((1, 1, 2, 2, 3))))
        n = rng.choice((2, 3, 3, 4, 4, 5, 6))
        rows = tuple(tuple(rng.randint(0, 2) for _ in columns) for _ in range(n))
        weights = (1,) * n if rng.random() < 0.25 else tuple(rng.choice((0, 1, 1, 2, 3, 5)) for _ in range(n))
        if sum(weight > 0 for weight in weights) < 2:
            continue
        case = Case(columns, rows, weights, _random_graph(rng, columns, rng.randint(2, 6)), {}, "u0")
        case = replace(case, claims=_random_claims(rng, case, stop / 3 if copies else stop))
        if sharing == "groups":
            used = sorted({node for claim in case.claims.values() for node in unimportant(case, claim)})
            members = [node for node in used if rng.random() < 0.8]
            cut = rng.randint(0, len(members))
            groups = {"p": tuple(members[:cut]), "q": tuple(members[cut:])}
        case = replace(case, sharing=groups if sharing == "groups" else sharing)
        depth = _depth(case.claims)
        if not least_depth - tries / 100 <= depth <= 4:
            continue
        tree = treeify(case)
        unclaimed = [site.origin for site in tree if site.claim is None]
        n_leaves = len(unclaimed) + sum(site.claim is not None and not case.claims[site.claim].reads for site in tree)
        # What was wished for is given up little by little: no case is worth waiting for.
        large = n_leaves >= max(2, least_leaves - tries / 60)
        wished = large and (not copies or len(set(unclaimed)) < len(unclaimed) or tries > 400)
        if not wished or n_leaves > 10 or n ** len(tree) > MOST or support_size(case) > size:
            continue
        if len(set(values(case)[[*case.nodes][-1]])) > 1:
            return case
    raise AssertionError


@cache
def cases(sharing: str, count: int = PER_MODE) -> tuple[Case, ...]:
    """The cases of one sharing mode that all tests look at: made once, for finding one takes a hundred tries."""
    return tuple(random_case(random.Random(f"{sharing} {k}"), sharing) for k in range(count))


law_of, f_of = cache(law), cache(distribution_of_f)
