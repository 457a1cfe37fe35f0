"""From what the user asked for to loaded networks and the feature sets they fill.

Every choice that defines a number ends in a FeatureSpec; what only explains it (library versions, device,
decoder) ends in the provenance.
"""

from __future__ import annotations

import dataclasses
import platform
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import TypeVar

import torch

from extract.backbone import AudioBackbone, Backbone, BackboneError, ClipFormat, backbone_class, set_name
from extract.decode import DECODERS, DecodePlan
from extract.extractors import Network, Sound
from extract.flow import FlowStage
from extract.scene_rows import Scenes, scene_level, scene_network
from extract.scenes import SceneCutting, detector_class
from extract.streams import choose_streams, flow_stage
from extract.views import Clips, Views
from extract.weights import LoadedWeights, build_backbone
from extract.whitening import Whitening, check_pca, chosen_whitening, stored_form, whitening_settings
from stores.spec import FeatureSpec, Granularity

T = TypeVar("T")

LEVELS = (Granularity.FRAME, Granularity.CLIP, Granularity.MAP, Granularity.SCENE)
SAMPLED_LEVELS = (Granularity.CLIP, Granularity.MAP)
DEFAULT_LEVELS = (Granularity.CLIP, Granularity.FRAME)  # the first of these that a backbone has


@dataclass(frozen=True)
class ExtractOptions:
    """What `vl extract` was asked for; maps go from a backbone (settings: or "" for all) to the user's value."""

    backbones: tuple[str, ...]
    levels: tuple[Granularity, ...] = ()  # none: each backbone's default
    weights: Mapping[str, str] = field(default_factory=dict)
    fps: Mapping[str, float] = field(default_factory=dict)
    stride: Mapping[str, int] = field(default_factory=dict)
    window: Mapping[str, int] = field(default_factory=dict)
    last_stride: Mapping[str, int] = field(default_factory=dict)  # 1: spatial stride of the last stage
    pca: Mapping[str, str] = field(default_factory=dict)  # files of the published PCA; rows are stored in 8 bits
    dense: str | None = None  # convolutional or windowed; none: each backbone's default
    roi: tuple[int, int, int, int] | None = None
    dtype: str = "float16"
    device: str = "auto"
    precision: str = "fp32"
    batch: int | None = None
    tile: int | None = None  # frames of a convolutional tile, of which all but the context become rows
    decoder: str = "pyav"
    planes: bool | None = None  # convert colours where the networks run, not in the decoder; None: on CUDA
    views: tuple[Views, ...] = ()  # clip-sampled sets, one for each speed; none: dense
    scenes: SceneCutting | None = None  # how scenes are cut; none: the default
    streams: tuple[str, ...] = ("rgb",)
    flow: str | None = None  # how flow is computed (extract.flow); none: DIS
    save_flow: Path | None = None  # where flow is written to as pictures; none: nowhere


@dataclass(frozen=True)
class Plan:
    """Loaded networks, the sets they fill, and where their numbers come from."""

    networks: tuple[Network, ...]
    sounds: tuple[Sound, ...]
    provenance: Mapping[str, Mapping[str, str]]
    roi: tuple[int, int, int, int] | None
    decoder: str
    scenes: Scenes | None = None
    planes: bool = False
    device: torch.device = torch.device("cpu")  # noqa: RUF009  # cannot be changed

    @property
    def specs(self) -> dict[str, FeatureSpec]:
        """Spec of every set, by name."""
        specs: dict[str, FeatureSpec] = {}
        for network in self.networks:
            specs |= network.specs
        specs |= self.scenes.specs if self.scenes else {}
        return specs | {sound.set_name: sound.spec for sound in self.sounds}

    @property
    def shown(self) -> tuple[Network, ...]:
        """One network of each backbone and stream, to see that its weights live."""
        scenes = self.scenes.networks if self.scenes else ()
        return tuple({network.shown_name: network for network in (*scenes, *self.networks)}.values())

    @property
    def decode(self) -> DecodePlan:
        """What the workers must hand over for all networks together."""
        every_frame = [None] if self.scenes else []
        rates = tuple(dict.fromkeys([*(network.fps for network in self.networks), *every_frame]))
        clips = [self._clips(rate) for rate in rates]
        sample_rates = {sound.backbone.sample_rate for sound in self.sounds}
        assert len(sample_rates) <= 1, f"audio backbones want several sample rates: {sample_rates}"
        return DecodePlan(
            rates=rates,
            audio_rate=next(iter(sample_rates), None),
            roi=self.roi,
            decoder=self.decoder,
            planes=self.planes,
            clips=tuple(clips) if any(network.views for network in self.networks) else (),
        )

    def _clips(self, rate: float | None) -> tuple[Clips, ...]:
        """The clips that alone are looked at of the frames of this rate; () where a dense network wants them all."""
        networks = [network for network in self.networks if network.fps == rate]
        clips = [network.clips for network in networks if network.clips is not None and network.flow is None]
        dense = len(clips) < len(networks) or (rate is None and self.scenes is not None)
        return () if dense else tuple(clips)

    @property
    def agreements(self) -> dict[str, float]:
        """Least cosine between bf16 and fp32 on the first batch, by backbone and stream; what ran in bf16 alone."""
        networks = (*self.networks, *(self.scenes.networks if self.scenes else ()))
        found: dict[str, float] = {}
        for network in networks:
            if (cosine := network.agreement.cosine) is not None:
                key = f"{network.backbone.name}.{network.backbone.stream}"
                found[key] = min(cosine, found.get(key, cosine))
        return found

    def only(self, sets: frozenset[str]) -> Plan:
        """The plan for some of its sets."""
        return dataclasses.replace(
            self,
            networks=tuple(n.only(sets) for n in self.networks if sets & set(n.specs)),
            sounds=tuple(s for s in self.sounds if s.set_name in sets),
            scenes=self.scenes and self.scenes.only(sets),
        )


def make_plan(options: ExtractOptions, report: Callable[[str], None] | None = None) -> Plan:
    """Load every backbone's weights and settle every setting; `report` is told of downloads.

    Raises:
        BackboneError: a name, level or setting does not exist or does not fit; a weights file does not load.
    """
    if not options.backbones:
        raise BackboneError("name at least one --backbone.")
    if options.decoder not in DECODERS and ":" not in options.decoder:
        raise BackboneError(f"there is no decoder '{options.decoder}'. There are: {', '.join(sorted(DECODERS))}.")
    device = choose_device(options.device)
    classes = {name: backbone_class(name) for name in options.backbones}
    check_names(options, classes)
    check_last_stride(options, classes)
    check_pca(options.pca, classes)
    streams = choose_streams(options.streams, classes)
    if options.views:
        check_views(options, classes)
    has = {name: {*cls.row_shapes, *([Granularity.SCENE] if scene_level(cls) else [])} for name, cls in classes.items()}
    chosen = {name: levels_of(name, has[name], options.levels) for name in classes}
    nobody = [level for level in options.levels if not any(level in levels for levels in chosen.values())]
    if nobody or not any(chosen.values()):
        raise BackboneError(
            f"no backbone of {', '.join(classes)} has level {', '.join(nobody)}; they have: "
            + "; ".join(f"{name} {', '.join(sorted(levels))}" for name, levels in has.items())
        )
    cutting = check_scenes(options, chosen)
    stage = flow_stage(options.flow, options.save_flow, streams, device)
    origin = detector_class(cutting.detector)(device).origin if cutting else ""  # an optional one may be missing
    # Scene detectors and flow look at RGB in memory; all else is converted where it is needed.
    in_memory = cutting is not None or stage is not None
    planes = not in_memory and (device.type == "cuda" if options.planes is None else options.planes)
    scenes: list[Network] = []
    networks: list[Network] = []
    sounds: list[Sound] = []
    provenance: dict[str, Mapping[str, str]] = {}
    each = [(name, stream) for name, of_one in streams.items() if chosen[name] for stream in of_one]
    for name, stream in each:
        whitening = chosen_whitening(classes[name], pick(options.pca, name), chosen[name], device)
        choice = options.weights.get(f"{name}.{stream}", options.weights.get(name))
        backbone, loaded = build_backbone(name, choice, stream=stream, device=device, report=report)
        made = provenance_of(options, device, loaded)
        if isinstance(backbone, AudioBackbone):
            sounds.append(plan_sound(backbone, loaded, options, device, whitening))
            provenance[sounds[-1].set_name] = made
            continue
        made["colour"] = "converted by the network's device" if planes else "converted by the decoder"
        if backbone.last_stage and pick(options.last_stride, name):
            backbone.unstride_last_stage()
        flow = stage if stream == "flow" else None
        if levels := tuple(level for level in chosen[name] if level is not Granularity.SCENE):
            planned = (
                plan_sampled(backbone, loaded, levels, options, flow)
                if options.views and sees_clips(classes[name])
                else [plan_network(backbone, loaded, levels, options, flow, whitening)]
            )
            networks += planned
            provenance |= {
                key: {**made, "flow": flow.method.origin} if flow else made for net in planned for key in net.specs
            }
        if cutting and Granularity.SCENE in chosen[name] and flow is None:
            scenes.append(
                scene_network(
                    backbone,
                    loaded,
                    cutting,
                    frames=pick(options.window, name),
                    roi=options.roi,
                    dtype=options.dtype,
                    precision=options.precision,
                    whitening=whitening,
                )
            )
            provenance |= {key: {**made, "scene_detector": origin} for key in scenes[-1].specs}
    cut = Scenes(tuple(scenes), cutting) if cutting else None
    return Plan(tuple(networks), tuple(sounds), provenance, options.roi, options.decoder, cut, planes, device)


def check_scenes(options: ExtractOptions, chosen: Mapping[str, tuple[Granularity, ...]]) -> SceneCutting | None:
    """How scenes are cut, if there are any; BackboneError for settings that have no say in what is made."""
    if not any(Granularity.SCENE in levels for levels in chosen.values()):
        if options.scenes is not None:
            raise BackboneError("settings of scenes without --level scene: give both, or neither.")
        return None
    if "rgb" not in options.streams:
        raise BackboneError("--level scene is a row of frames, not of flow: add --stream rgb, or leave it out.")
    for name, levels in chosen.items():
        given = [what for what in ("fps", "stride") if pick(getattr(options, what), name) is not None]
        given += ["dense"] if options.dense is not None else []
        if given and levels == (Granularity.SCENE,):
            raise BackboneError(
                f"--{given[0]} changes nothing for {name}: a scene has one row, of frames at the video's own rate."
            )
    return options.scenes or SceneCutting()


def check_names(options: ExtractOptions, classes: Mapping[str, type[Backbone | AudioBackbone]]) -> None:
    """Raise for a `NAME=value` option whose name is no requested backbone, and for names that give one set name."""
    for what in ("fps", "stride", "window", "pca"):
        if unknown := sorted(set(getattr(options, what)) - set(classes) - {""}):
            raise BackboneError(f"--{what} names {', '.join(unknown)}, but the backbones are {', '.join(classes)}.")
    called: dict[str, str] = {}
    for name, kind in classes.items():
        other_name = called.setdefault(set_name(name, kind.stream, Granularity.FRAME), name)
        if other_name != name:
            raise BackboneError(f"{other_name} and {name} would fill sets of one name: extract them into two stores.")


def check_last_stride(options: ExtractOptions, classes: Mapping[str, type[Backbone | AudioBackbone]]) -> None:
    """Raise for a stride other than 1, and for networks without a last stage whose stride could be that."""
    having = [name for name, kind in classes.items() if issubclass(kind, Backbone) and kind.last_stage]
    named = list(options.last_stride)
    if (without := sorted(set(named) - {"", *having})) or (named and not having):
        raise BackboneError(
            f"--last-stride: {', '.join(without or classes)} has no residual last stage whose stride could be 1."
        )
    if other := [stride for stride in options.last_stride.values() if stride != 1]:
        raise BackboneError(f"--last-stride is 1, or left out for the published network's own; it is not {other[0]}.")


def check_views(options: ExtractOptions, classes: Mapping[str, type[Backbone | AudioBackbone]]) -> None:
    """Raise where no backbone sees clips, and for options that are for dense sets alone."""
    sampled = [name for name, kind in classes.items() if sees_clips(kind)]
    if not sampled:
        raise BackboneError(f"--speeds and --views: {', '.join(classes)} sees no clips. Name a backbone that does.")
    if options.dense is not None or any(pick(options.stride, name) is not None for name in sampled):
        raise BackboneError("--speeds and --views say where clips lie: leave out --stride and --dense.")
    if options.levels and not set(options.levels) & set(SAMPLED_LEVELS):
        raise BackboneError(f"--speeds and --views are for the levels clip and map, not {', '.join(options.levels)}.")


def sees_clips(kind: type[Backbone | AudioBackbone]) -> bool:
    """Whether --speeds and --views have a say in what it sees: sound and single images are dense beside them."""
    return not issubclass(kind, AudioBackbone) and kind.clip.window > 1


def levels_of(name: str, has: set[Granularity], wanted: tuple[Granularity, ...]) -> tuple[Granularity, ...]:
    """Levels of one backbone: those wanted that it has, or its default."""
    if wanted:
        return tuple(level for level in LEVELS if level in wanted and level in has)
    default = next((level for level in DEFAULT_LEVELS if level in has), None)
    assert default is not None, f"{name} has neither clip nor frame rows"
    return (default,)


def pick(values: Mapping[str, T], name: str) -> T | None:
    """The value given for this backbone, else the one given for all."""
    return values.get(name, values.get(""))


def choose_device(name: str) -> torch.device:
    """`auto` is the first CUDA device where there is one, else the CPU."""
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:  # torch asserts that it was built with CUDA
        raise BackboneError(f"--device {name} cannot be used here: {str(error).splitlines()[0]}") from error
    return device


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
            resize=f"short side {clip.resize}, bilinear, antialiased",
            crop=f"centre {clip.crop}",
            normalise=f"mean {clip.mean}, sd {clip.std}",
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
    stride, window = stride or clip.stride, window or clip.window
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


def provenance_of(options: ExtractOptions, device: torch.device, loaded: LoadedWeights) -> dict[str, str]:
    """What made the rows, beside what defines them."""
    gpu = torch.cuda.get_device_name(device) if device.type == "cuda" else platform.machine()
    return {
        "vl": version("vl"),
        "torch": torch.__version__,
        "decoder": f"{options.decoder} {version('decord' if options.decoder == 'decord' else 'av')}",
        "device": f"{device.type} ({gpu})",
        "precision": options.precision,
        "weights": loaded.name,
    }
