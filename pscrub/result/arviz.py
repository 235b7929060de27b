"""Named arrays as xarray and ArviZ data. The only module that knows either library.

ArviZ 0.23 (Python 3.11) holds groups of variables in an InferenceData; 1.x (Python 3.12 on) in an xarray DataTree, and
takes another form in `from_dict`, out of which 0.23 builds garbage without a word. Here the groups are made as xarray
data sets, and only the container differs.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from pscrub.result.draws import Draws, Reference

Variables = Mapping[str, tuple[Sequence[str], Any]]
"""name -> (names of the dimensions, array)."""
DRAWS = "scrubbed_draws"
"""The group of the draws that a result was made from."""


def dataset(
    variables: Variables, coords: Mapping[str, Any] | None = None, attrs: Mapping[str, Any] | None = None
) -> Any:
    """An xarray.Dataset of named arrays.

    Args:
        variables: name -> (names of the dimensions, array).
        coords: dimension -> its labels; those that no variable has are left out.
        attrs: what to say about all of them.

    >>> dataset({"f": (["draw"], [0.5, 0.25])}, {"draw": [0, 1]})["f"].sel(draw=1).item()
    0.25
    """
    import xarray

    used = {dim for dims, _ in variables.values() for dim in dims}
    kept = {name: labels for name, labels in (coords or {}).items() if name in used}
    return xarray.Dataset({name: (tuple(d), v) for name, (d, v) in variables.items()}, kept, dict(attrs or {}))


def inference_data(
    groups: Mapping[str, Variables],
    coords: Mapping[str, Any] | None = None,
    attrs: Mapping[str, Any] | None = None,
    arviz: Any = None,
) -> Any:
    """ArviZ's container of groups of variables: InferenceData in 0.x, xarray.DataTree in 1.x.

    Args:
        groups: as "posterior" or "observed_data" -> variables. Those that ArviZ is to summarise have "chain" and "draw"
            as their first two dimensions.
        coords: dimension -> its labels.
        attrs: what to say about all groups.
        arviz: the library; the one installed by default.

    >>> drawn = {"E": (["chain", "draw"], [[1.0, 2.0, 4.0]])}
    >>> float(inference_data({"posterior": drawn})["posterior"]["E"].max())
    4.0
    """
    import xarray

    if arviz is None:
        import arviz
    made = {name: dataset(each, _number(each) | dict(coords or {}), attrs) for name, each in groups.items()}
    if int(arviz.__version__.split(".")[0]) < 1:
        return arviz.InferenceData(**made)
    return xarray.DataTree.from_dict({f"/{name}": each for name, each in made.items()})


def draws_dataset(draws: Draws, attrs: Mapping[str, Any]) -> Any:
    """An xarray.Dataset over the dimension "draw": loss, row and the distances of one hypothesis.

    Args:
        draws: of the hypothesis.
        attrs: what to say about them.
    """
    columns = {"loss": draws.losses, "row": draws.rows} | dict(draws.distances)
    return dataset({name: (["draw"], column.numpy()) for name, column in columns.items()}, attrs=attrs)


def draws_inference_data(draws: Draws, posterior: Variables, attrs: Mapping[str, Any]) -> Any:
    """ArviZ data of one hypothesis: what ArviZ summarises is the posterior; the draws stand in a group of their own.

    The draws of f are pairs from strata of the root's datum: neither a chain nor a sample of a parameter, so that no
    diagnostic of chains means anything of them. Nor does a mean of row numbers.

    Args:
        draws: of the hypothesis.
        posterior: variables over "chain" and "draw".
        attrs: what to say about them.
    """
    drawn = {"loss": draws.losses, "row": draws.rows} | dict(draws.distances)
    groups = {"posterior": posterior, DRAWS: {name: (["pair_draw"], each.numpy()) for name, each in drawn.items()}}
    return inference_data(groups, attrs=attrs)


def study_dataset(
    draws: Mapping[str, Draws], values: Mapping[str, Sequence[float]], reference: Reference, attrs: Mapping[str, Any]
) -> Any:
    """An xarray.Dataset: loss, row and distances by hypothesis and draw; values by hypothesis; f on D by datum.

    Args:
        draws: by hypothesis.
        values: name -> one number a hypothesis.
        reference: f on D, and D's weights.
        attrs: what to say about them.
    """
    variables: dict[str, Any] = {name: (["hypothesis", "draw"], v.numpy()) for name, v in _side_by_side(draws).items()}
    variables |= {name: (["hypothesis"], list(each)) for name, each in values.items()}
    variables |= {"loss_on_data": (["datum"], reference.losses.numpy())}
    variables |= {"weight": (["datum"], reference.weights.numpy())}
    return dataset(variables, {"hypothesis": list(draws)}, attrs)


def study_inference_data(
    draws: Mapping[str, Draws], posterior: Variables, reference: Reference, attrs: Mapping[str, Any]
) -> Any:
    """ArviZ data of all hypotheses: posteriors, draws in a group of their own, and f on D as observed data.

    Args:
        draws: by hypothesis.
        posterior: variables over "chain", "draw" and "hypothesis".
        reference: f on D, and D's weights.
        attrs: what to say about them.
    """
    drawn = _side_by_side(draws)
    groups = {
        "posterior": posterior,
        DRAWS: {name: (["hypothesis", "pair_draw"], each.numpy()) for name, each in drawn.items()},
        "observed_data": {"loss": (["datum"], reference.losses.numpy())},
        "constant_data": {"weight": (["datum"], reference.weights.numpy())},
    }
    return inference_data(groups, {"hypothesis": list(draws)}, attrs)


def _side_by_side(draws: Mapping[str, Draws]) -> dict[str, Tensor]:
    """name -> [hypotheses, draws], filled up with NaN (rows: -1) to the most draws that any has."""
    names = dict.fromkeys(("loss", *(name for each in draws.values() for name in each.distances)))
    most = max((len(each.losses) for each in draws.values()), default=0)
    out = {name: torch.full((len(draws), most), torch.nan, dtype=torch.float64) for name in names}
    out["row"] = torch.full((len(draws), most), -1)
    for i, each in enumerate(draws.values()):
        for name, column in ({"loss": each.losses, "row": each.rows} | dict(each.distances)).items():
            out[name][i, : len(column)] = column
    return out


def _number(variables: Variables) -> dict[str, Any]:
    """Labels for "chain" and "draw", as ArviZ's own converters give them."""
    import numpy

    sizes = {dim: size for dims, v in variables.values() for dim, size in zip(dims, numpy.shape(v), strict=True)}
    return {dim: numpy.arange(size) for dim, size in sizes.items() if dim in ("chain", "draw")}
