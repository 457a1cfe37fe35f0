"""Settings and specs of each network: every choice that defines a number ends in a FeatureSpec."""

from __future__ import annotations

import dataclasses

import torch

from extract.backbone import AudioBackbone, Backbone, BackboneError, ClipFormat, set_name
from extract.extract_options import ExtractOptions, pick
from extract.extractors import Network
from extract.flow import FlowStage
from extract.sound_rows import Sound
from extract.weights import LoadedWeights
from extract.whitening import Whitening, stored_form, whitening_settings
from stores.spec import FeatureSpec, Granularity


def plan_network(
    backbone: Backbone,
    loaded: LoadedWeights,
    levels: tuple[Granularity, ...],
    options: ExtractOptions,
    flow: FlowStage | None = None,
    whitening: Whitening | None = None,
) -> Network:
    """Settings and specs of one network on frames, or on the flow between them."""
    name, clip = backbone.name, backbone.clip
    fps = pick(options.fps, name) or clip.fps
    stride, window, convolutional = clip_settings(name, clip, levels, options)
    dense = None if clip.window == 1 else ("convolutional" if convolutional else "windowed")
    sets = {level: set_name(name, backbone.stream, level) for level in levels}
    whitened = {level: whitening if level is Granularity.FRAME else None for level in levels}
    specs = {
        sets[level]: FeatureSpec(
            granularity=level,
            **stored_form(backbone.row_shapes[level], options.dtype, whitened[level]),
            backbone=name,
            stream=backbone.stream,
            weights=loaded.name,
            weights_sha256=loaded.sha256,
            random_weights=loaded.random or (flow is not None and flow.method.random),
            fps=fps,
            stride=stride,
            window=None if convolutional or window == 1 else window,
            dense=dense,
            receptive_field=clip.receptive_field if convolutional else None,
            **clip.spec_fields(),
            roi=options.roi,
            settings={
                **backbone.settings(),
                **(flow.method.settings if flow else {}),
                **whitening_settings(whitened[level]),
            },
        )
        for level in levels
    }
    on_cuda = next(backbone.parameters()).device.type == "cuda"
    tile = options.tile or (1024 if on_cuda else 768)  # 7.3 and 7.1 times less work than windows; 5 MB a frame
    batch = options.batch or (1 if convolutional else (32 if window == 1 else 2) * (8 if on_cuda else 1))
    return Network(
        backbone,
        sets,
        specs,
        fps,
        stride,
        window,
        convolutional,
        batch,
        tile,
        options.precision,
        flow=flow,
        whitening=whitening,
    )


def plan_sampled(
    backbone: Backbone,
    loaded: LoadedWeights,
    levels: tuple[Granularity, ...],
    options: ExtractOptions,
    flow: FlowStage | None = None,
) -> list[Network]:
    """One network for each speed, all of the same weights, on clips of a video instead of all of it."""
    name, clip = backbone.name, backbone.clip
    window = pick(options.window, name) or clip.window
    side_by_side = dataclasses.replace(options, dense="windowed", window={name: window}, stride={name: window})
    dense = plan_network(backbone, loaded, levels, side_by_side, flow)
    batch = options.batch or (16 if dense.device.type == "cuda" else 2)
    networks = []
    for views in options.views:
        sets = {level: f"{dense_name}.r{views.speed}" for level, dense_name in dense.sets.items()}
        specs = {
            sets[level]: dataclasses.replace(
                dense.specs[dense_name],
                stride=clip.output_stride * views.speed if level is Granularity.MAP else None,
                window=window,
                dense=None,
                crop=f"{'left, centre and right' if views.crops == 3 else 'centre'} {clip.crop}",
                speed=views.speed,
                view=views.name,
            )
            for level, dense_name in dense.sets.items()
        }
        made: Network = dataclasses.replace(dense, sets=sets, specs=specs, window=window, batch=batch, views=views)
        networks.append(made)
    return networks


def clip_settings(
    name: str, clip: ClipFormat, levels: tuple[Granularity, ...], options: ExtractOptions
) -> tuple[int, int, bool]:
    """(stride, window, convolutional) of one network; BackboneError where they contradict each other."""
    stride = pick(options.stride, name)
    window = pick(options.window, name)
    if clip.window == 1:
        if (stride or 1) != 1 or (window or 1) != 1:
            raise BackboneError(f"{name} sees single frames: --fps sets its rows a second, not --stride or --window.")
        return 1, 1, False
    dense = options.dense or ("windowed" if window or not clip.halo else "convolutional")
    if dense == "convolutional":
        if not clip.halo:
            raise BackboneError(f"{name} has no convolutional mode; use --dense windowed.")
        if window or (stride or clip.output_stride) != clip.output_stride:
            raise BackboneError(
                f"the convolutional mode of {name} gives a row every {clip.output_stride} frames and has no window; "
                "other strides and windows need --dense windowed."
            )
        return clip.output_stride, clip.window, True
    window = window or clip.window
    alone = levels == (Granularity.MAP,)  # then nobody wants rows more often than maps can stand side by side
    stride = stride or (max(clip.stride, window) if alone else clip.stride)
    clip.check_window(name, window)
    if window % clip.output_stride:
        raise BackboneError(f"--window {window} of {name} must be a multiple of {clip.output_stride} frames.")
    if Granularity.MAP in levels and (stride < window or stride % clip.output_stride):
        raise BackboneError(
            f"map rows of {name} would overlap: give --stride {window} or more, a multiple of "
            f"{clip.output_stride}, or use --dense convolutional."
        )
    return stride, window, False


def plan_sound(
    backbone: AudioBackbone,
    loaded: LoadedWeights,
    options: ExtractOptions,
    device: torch.device,
    whitening: Whitening | None = None,
) -> Sound:
    """Settings and spec of one audio backbone."""
    rate = pick(options.fps, backbone.name) or backbone.default_rate
    spec = FeatureSpec(
        granularity=Granularity.FRAME,
        **stored_form(backbone.row_shapes[Granularity.FRAME], options.dtype, whitening),
        backbone=backbone.name,
        stream=backbone.stream,
        weights=loaded.name,
        weights_sha256=loaded.sha256,
        random_weights=loaded.random,
        fps=rate,
        settings={**backbone.settings(), **whitening_settings(whitening)},
    )
    name = set_name(backbone.name, backbone.stream, Granularity.FRAME)
    return Sound(backbone, name, spec, rate, device, whitening)
