"""Exact laws of a hypothesis deeper than Python recurses, against closed forms."""

import pytest

from pscrub.law.exact import cut_law, lemma_1
from pscrub.law.of_f import law_of_f
from pscrub.law.wires import cut_wires
from tests.law.long_chain import DATA, DRAWS, ODD, chain_tree

TOLERANCE = 1e-12


def test_laws_of_a_chain_longer_than_python_recurses() -> None:
    tree, last = chain_tree(), list(chain_tree().sites)[-1]
    claims = [path for path, site in tree.sites.items() if site.claim is not None]
    odd = float(DATA.weights[1::2].sum())
    for opened, wire, expected in ((claims[:700], claims[700], [1 - odd, odd]), (claims, last, DATA.weights.tolist())):
        found = cut_law(tree, opened)
        assert found.wires == (wire,)
        assert found.as_dict() == pytest.approx({(k,): p for k, p in enumerate(expected)}, abs=TOLERANCE)
    assert cut_wires(tree, tree.sites) == tree.leaves
    assert all(row.datum <= TOLERANCE and row.inputs <= TOLERANCE for row in lemma_1(tree))


def test_the_law_of_f_of_a_chain_longer_than_python_recurses() -> None:
    """(-1)^f is a product of independent signs, that of x and one for each y."""
    odd = float(DATA.weights[1::2].sum())
    sign = (1 - 2 * odd) * (1 - 2 * ODD) ** DRAWS
    assert law_of_f(chain_tree()) == pytest.approx({0.0: (1 + sign) / 2, 1.0: (1 - sign) / 2}, abs=TOLERANCE)
