"""From what the user asked for to loaded networks and the feature sets they fill.

What defines a number ends in a FeatureSpec (`extract.plan_networks`); what only explains it (library versions, device,
decoder) ends in the provenance.
"""

from __future__ import annotations

import dataclasses
import platform
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib.metadata import version

import torch

from extract.backbone import AudioBackbone, BackboneError, backbone_class
from extract.decode import DECODERS, DecodePlan
from extract.extract_options import (
    ExtractOptions,
    check_last_stride,
    check_names,
    check_scenes,
    check_views,
    choose_device,
    levels_of,
    pick,
    sees_clips,
)
from extract.extractors import Network
from extract.plan_networks import plan_network, plan_sampled, plan_sound
from extract.scene_rows import Scenes, scene_level, scene_network
from extract.scenes import detector_class
from extract.sound_rows import Sound
from extract.streams import choose_streams, flow_stage
from extract.views import Clips
from extract.weights import LoadedWeights, build_backbone
from extract.whitening import check_pca, chosen_whitening
from stores.spec import FeatureSpec, Granularity


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
