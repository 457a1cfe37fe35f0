"""Packages that are no dependency: oracles, and the extras that open families of models."""

import importlib.util
import sys
import types
import warnings
from typing import Any

import pytest


def optional(package: str) -> Any:
    """The package, or a skip that says which one is missing.

    torchvision built for another torch imports once the module that registers its shapes of operators is there, which
    no model needs.
    """
    if importlib.util.find_spec("torchvision") is not None:
        sys.modules.setdefault("torchvision._meta_registrations", types.ModuleType("_meta_registrations"))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of the package's own imports
        return pytest.importorskip(package, reason=f"the optional package {package} is not installed")
