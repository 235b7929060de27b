"""Named arrays as xarray and ArviZ data. The only module that knows either library.

ArviZ 0.23 (Python 3.11) holds groups of variables in an InferenceData; 1.x (Python 3.12 on) in an xarray DataTree, and
takes another form in `from_dict`, out of which 0.23 builds garbage without a word. Here the groups are made as xarray
data sets, and only the container differs.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

Variables = Mapping[str, tuple[Sequence[str], Any]]
"""name -> (names of the dimensions, array)."""


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
        groups: as "posterior", "prior_predictive" or "observed_data" -> variables. Variables that were drawn have
            "chain" and "draw" as their first two dimensions.
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
    made = {name: dataset(each, _numbered(each) | dict(coords or {}), attrs) for name, each in groups.items()}
    if int(arviz.__version__.split(".")[0]) < 1:
        return arviz.InferenceData(**made)
    return xarray.DataTree.from_dict({f"/{name}": each for name, each in made.items()})


def _numbered(variables: Variables) -> dict[str, Any]:
    """Labels for "chain" and "draw", as ArviZ's own converters give them."""
    import numpy

    sizes = {dim: size for dims, v in variables.values() for dim, size in zip(dims, numpy.shape(v), strict=True)}
    return {dim: numpy.arange(size) for dim, size in sizes.items() if dim in ("chain", "draw")}
