"""`vl extract --engine ray`: the same extraction by many workers. Loaded when it is asked for, and not before."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from cli.progress import ExtractionProgress
from extract.accounts import Summary
from extract.crew import Order, extract_with
from extract.extract_options import ExtractOptions
from extract.inputs import Inputs
from extract.plan import Plan
from extract.ray_crew import ray_crew


def on_ray(
    found: Inputs,
    plan: Plan,
    options: ExtractOptions,
    store: Path,
    rest: dict[str, Any],
    attachments: dict[str, dict[str, Any]] | None,
    progress: ExtractionProgress,
    address: str | None,
    size: int | None,
) -> Summary:
    """The same extraction by a crew on Ray."""
    order = Order(options.with_absolute_paths(), store.absolute(), **rest)
    with ray_crew(order, address=address, size=size, say=progress.line) as crew:
        return extract_with(
            crew,
            found.videos,
            found.failures,
            plan,
            order,
            observer=progress,
            attachments=attachments,
            note=progress.line,
        )
