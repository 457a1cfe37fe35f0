"""What the user says of features, made whole by a recipe."""

from __future__ import annotations

from stores.errors import StoreError
from stores.importing import ImportOptions
from stores.labels import Labels
from stores.names import printable, slug
from stores.spec import Granularity
from stores.time_grid import TimeGrid, find_recipe, grid_of


def make_options(
    kind: str,
    *,
    recipe: str | None = None,
    fps: float | None = None,
    stride: int | None = None,
    window: int | None = None,
    offset: float | None = None,
    backbone: str | None = None,
    stream: str | None = None,
    level: str | None = None,
    layout: str = "TD",
    crops: str = "keep",
    dtype: str | None = None,
    durations: Labels | None = None,
) -> ImportOptions:
    """The options of an import; the format `yt8m` is its own recipe, what is given beside a recipe goes before it.

    Raises:
        StoreError: nobody says what made the features.
        TimeGridError: there is no such recipe, or only a part of a grid was given.
    """
    if recipe is None and kind == "yt8m":
        recipe = "yt8m"
    found = find_recipe(recipe) if recipe is not None else None
    grid = grid_of(fps, stride, window, offset, found)
    if backbone is None and found is None:
        raise StoreError("say what made the features: --backbone i3d, or another name that you will know again.")
    if backbone is not None and slug(backbone, 40) != backbone.lower():
        raise StoreError(f"--backbone is a name of letters, digits, '_', '.' and '-', not '{printable(backbone)}'.")
    if layout == "TD" and crops != "keep":
        raise StoreError("--crops is for --layout CTD or TCD.")
    name = backbone or (found.backbone if found is not None else "")
    source = {"imported_from": kind} | ({"recipe": recipe} if recipe is not None else {})
    return ImportOptions(
        name.lower(),
        grid,
        stream or (found.stream if found is not None else "rgb"),
        _level(level, found.granularity if found is not None else None, grid),
        dtype or ("float32" if kind == "yt8m" else "float16"),
        layout,
        crops,
        found.width if found is not None else None,
        durations,
        source,
    )


def _level(given: str | None, of_recipe: Granularity | None, grid: TimeGrid | None) -> Granularity:
    if given is not None:
        return Granularity(given)
    if of_recipe is not None:
        return of_recipe
    single = grid is not None and grid.stride == 1 and (grid.window or 1) == 1
    return Granularity.FRAME if single else Granularity.CLIP
