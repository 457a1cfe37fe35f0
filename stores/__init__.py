"""Feature stores: a map from a video to rows, every row with the seconds it stands for."""

from stores.errors import DamageError, NoSpaceError, SpecMismatchError, StoreError, VlError
from stores.opening import open_store
from stores.spec import Failure, FeatureSpec, FeatureStore, Granularity, Rows, VideoEntry

__all__ = [
    "DamageError",
    "Failure",
    "FeatureSpec",
    "FeatureStore",
    "Granularity",
    "NoSpaceError",
    "Rows",
    "SpecMismatchError",
    "StoreError",
    "VideoEntry",
    "VlError",
    "open_store",
]
