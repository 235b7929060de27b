"""ArviZ data in both of the forms that ArviZ has had: InferenceData (0.x) and xarray's DataTree (1.x).

ArviZ 1.x needs Python 3.12: where 0.x is installed, 1.x is stood in for by its version number, which is all that the
module looks at, and by xarray's own DataTree, which is its container. With the wheels of 1.3.0 before it on PYTHONPATH
(`pip download --no-deps --python-version 3.12 --only-binary=:all: arviz arviz-base arviz-stats arviz-plots`, and
`lazy_loader`), which run on 3.11 too, these tests are of the real one.
"""

import sys
from types import SimpleNamespace
from typing import Any

import arviz
import numpy as np
import pytest
import torch
import xarray

from pscrub.result import arviz as to_arviz
from pscrub.result.draws import Draws

DRAWN = np.arange(12.0).reshape(2, 3, 2)
GROUPS = {
    "posterior": {"E": (["chain", "draw", "hypothesis"], DRAWN)},
    "observed_data": {"f": (["datum"], np.array([0.5, 0.25]))},
}
INSTALLED = int(arviz.__version__.split(".")[0])
OLD = SimpleNamespace(__version__="0.23.4", InferenceData=arviz.InferenceData if INSTALLED < 1 else None)
NEW = SimpleNamespace(__version__="1.3.0")


def made(library: Any) -> Any:
    return to_arviz.inference_data(GROUPS, {"hypothesis": ["a", "b"]}, {"study": "s"}, library)


@pytest.mark.parametrize(
    "library",
    [
        pytest.param(OLD, marks=pytest.mark.skipif(INSTALLED >= 1, reason="ArviZ 0.x is not installed"), id="0.x"),
        pytest.param(NEW, id="1.x"),
        pytest.param(None, id="installed"),
    ],
)
def test_the_same_groups_in_either_form(library: Any) -> None:
    data = made(library)
    posterior = data["posterior"]
    assert posterior["E"].dims == ("chain", "draw", "hypothesis")
    assert np.array_equal(posterior["E"].values, DRAWN)
    assert posterior["E"].sel(hypothesis="b", chain=1, draw=2).item() == 11
    assert posterior.attrs["study"] == "s"
    assert data["observed_data"]["f"].values.tolist() == [0.5, 0.25]
    assert "hypothesis" not in data["observed_data"].coords


def test_the_container_is_that_of_the_version() -> None:
    assert isinstance(made(NEW), xarray.DataTree)
    assert set(made(NEW).children) == set(GROUPS)
    assert isinstance(made(None), xarray.DataTree if INSTALLED >= 1 else arviz.InferenceData)


def test_arviz_itself_reads_what_is_made() -> None:
    flat = arviz.extract(made(None), keep_dataset=True)
    assert dict(flat.sizes) == {"hypothesis": 2, "sample": 6}
    assert float(flat["E"].mean()) == DRAWN.mean()
    assert arviz.summary(made(None), kind="stats").shape[0] == 2


@pytest.mark.parametrize("library", [None, NEW], ids=["installed", "1.x"])
def test_draws_stand_in_a_group_that_no_summary_takes_for_chains(library: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    if library is not None:
        monkeypatch.setitem(sys.modules, "arviz", library)
    posterior = {"E_scrubbed": (["chain", "draw"], np.random.default_rng(0).normal(size=(4, 50)))}
    rows = torch.arange(6)
    data = to_arviz.draws_inference_data(Draws(losses=rows.double(), rows=rows), posterior, {"hypothesis": "h"})
    assert set(data["scrubbed_draws"].dims) == {"pair_draw"} and set(data["posterior"].data_vars) == {"E_scrubbed"}
    every = data.groups() if library is None and INSTALLED < 1 else list(data.children)
    assert sorted(name.strip("/") for name in every) == ["posterior", "scrubbed_draws"]
    for name in ("prior", "prior_predictive"):
        assert name not in every
