"""The videos of `vl finetune`: which frames its networks see, and these networks, from the command line or a config."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import shlex
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cli.extract_command import SCENE_BACKBONES
from cli.options import OptionError, split
from cli.output import print_line
from stores.names import printable

if TYPE_CHECKING:
    from extract.clips import ClipSet
    from extract.inputs import Inputs
    from extract.plan import Plan
    from heads.clip_windows import Videos
    from heads.end_to_end import ClipNetwork
    from stores.spec import FeatureSpec


SIZES = {"stan-small": ("resnet18",), "stan-large": SCENE_BACKBONES}  # whose networks learn


@dataclasses.dataclass(frozen=True)
class Asked:
    """What of the command line decides which frames the networks see; kept in the run's config."""

    videos: tuple[str, ...]  # absolute paths
    backbones: tuple[str, ...]
    scenes: bool
    weights: tuple[str, ...]
    fps: Mapping[str, float]
    stride: Mapping[str, int]
    frames: Mapping[str, int]
    cutting: Mapping[str, Any]
    augment: str
    dtype: str = "float32"  # of the rows that would be stored, which --init may have rounded
    plans: str = ""  # the file of the decode plans
    levels: tuple[str, ...] = ()  # of the rows, where these are no scenes; none: the networks' default
    dense: str | None = None  # convolutional or windowed, where rows are no scenes; None: windowed
    tile_rows: int = 8  # of the convolutional mode: how many are made at once
    streams: tuple[str, ...] = ()  # rgb, flow; none: rgb
    flow: str | None = None  # how it is computed, as for vl extract

    @classmethod
    def from_dict(cls, fields: Mapping[str, Any]) -> Asked:
        """What a run's config keeps; OptionError if it is not what this version keeps."""
        lists = {name: tuple(fields.get(name, ())) for name in ("videos", "backbones", "weights", "levels", "streams")}
        try:
            return cls(**{**fields, **lists})
        except TypeError as error:
            raise OptionError(f"the run's config.json is malformed or of another version of vl: {error}.") from error

    def begun_with(self, specs: Iterable[FeatureSpec]) -> Asked:
        """The same, and where nobody asked for anything else, rows as those that a run was trained on."""
        from extract.scenes import SceneCutting
        from extract.streams import STREAMS
        from extract.weights import parse_weight_choices

        asked = self
        chosen = parse_weight_choices(self.weights, self.backbones)
        own = [spec for spec in specs if spec.backbone in self.backbones]
        if not self.streams:
            seen = {spec.stream for spec in own}
            asked = dataclasses.replace(asked, streams=tuple(stream for stream in STREAMS if stream in seen))
        for spec in own:
            name = spec.backbone
            stream = network_name(name, spec.stream)
            given = name in chosen or stream in chosen
            fields: dict[str, Any] = {
                "dtype": spec.dtype,
                "weights": asked.weights if given else (*asked.weights, f"{stream}={spec.weights}"),
                "frames": or_else(asked.frames, name, spec.window),
            }
            if self.scenes:
                known = {field.name for field in dataclasses.fields(SceneCutting)}
                fields["cutting"] = {**{key: spec.settings[key] for key in known & set(spec.settings)}, **self.cutting}
            else:
                fields |= {
                    "fps": or_else(asked.fps, name, spec.fps),
                    "stride": or_else(asked.stride, name, spec.stride),
                    "levels": tuple(sorted({str(other.granularity) for other in own})),
                    "dense": asked.dense or spec.dense,
                    "flow": asked.flow or spec.settings.get("flow"),
                }
            asked = dataclasses.replace(asked, **fields)
        return asked


def or_else(given: Mapping[str, Any], name: str, value: Any) -> dict[str, Any]:
    """The values that were given, and one for a backbone that has none among them.

    >>> or_else({"i3d": 8}, "resnet18", 1), or_else({"": 8}, "resnet18", 1), or_else({}, "resnet18", None)
    ({'i3d': 8, 'resnet18': 1}, {'': 8}, {})
    """
    if value is None or name in given or "" in given:
        return dict(given)
    return {**given, name: value}


def network_name(backbone: str, stream: str) -> str:
    """What one of the networks of a backbone is called by, as `--weights` has it.

    >>> network_name("i3d", "rgb"), network_name("i3d", "flow"), network_name("vggish", "audio")
    ('i3d', 'i3d.flow', 'vggish')
    """
    return f"{backbone}.{stream}" if stream == "flow" else backbone


def backbones_of(head: str, backbone: str | None, init: Path | None) -> tuple[str, ...]:
    """The networks of a run: those that are named, else those whose rows the run at `init` was trained on."""
    if head == "stan":
        raise OptionError("which networks learn? stan-small: ResNet-18; stan-large: R(2+1)D-18, too.")
    if head in SIZES:
        if backbone is not None:
            raise OptionError(f"{head} has the networks {' and '.join(SCENE_BACKBONES)}: leave --backbone out.")
        return SCENE_BACKBONES
    from heads.head import head_class

    head_class(head)
    named = split(backbone or "")
    if not named and init is not None:
        from extract.backbone import is_name
        from heads.checkpoint import read_config

        named = tuple(dict.fromkeys(spec.backbone for _, spec in read_config(init).specs if is_name(spec.backbone)))
    if not named:
        raise OptionError(f"name the network that learns below {head}: --backbone i3d")
    return named


def levels_of(head: str) -> tuple[str, ...]:
    """The rows that a head wants of networks, where they are not those that these give by default."""
    if head in SIZES:
        return ()
    from heads.head import head_class
    from stores.spec import Granularity

    accepts = head_class(head).accepts
    return () if accepts & {Granularity.CLIP, Granularity.FRAME} else tuple(sorted(accepts))


def absolute(choice: str) -> str:
    """A choice of weights whose file, if it is one, is found from any folder."""
    name, equals, path = choice.rpartition("=")
    return f"{name}{equals}{Path(path).absolute()}" if Path(path).is_file() else choice


def list_videos(asked: Asked) -> Inputs:
    """The videos that were named; an error if there are none."""
    from extract.inputs import enumerate_videos

    found = enumerate_videos([Path(path) for path in asked.videos])
    if not found.videos:
        raise OptionError(f"no videos in {', '.join(asked.videos)}.")
    return found


def open_videos(asked: Asked, device: str, workers: int, folder: Path, look: bool = True) -> tuple[Videos, Plan, Asked]:
    """The videos as clips, their networks loaded, and the file of their decode plans, in `folder` unless known.

    `look`: as `extract.clips.clip_store` has it; who may not says nothing either.
    """
    from extract.augment import AUGMENTS
    from extract.clip_plans import plan_settings
    from extract.clip_reader import ClipReader
    from extract.clips import clip_store
    from extract.extract_options import ExtractOptions
    from extract.plan import make_plan
    from extract.scenes import SceneCutting
    from extract.weights import parse_weight_choices
    from heads.clip_windows import Videos
    from stores.spec import Granularity

    options = ExtractOptions(
        backbones=asked.backbones,
        levels=(Granularity.SCENE,) if asked.scenes else tuple(Granularity(level) for level in asked.levels),
        weights=parse_weight_choices(list(asked.weights), list(asked.backbones)),
        fps=asked.fps,
        stride=asked.stride,
        window=asked.frames,
        streams=asked.streams or ("rgb",),
        flow=asked.flow,
        dense=None if asked.scenes else asked.dense or "windowed",
        dtype=asked.dtype,
        device=device,
        planes=False,
        scenes=SceneCutting(**asked.cutting) if asked.cutting else None,
    )
    kind = next((known for known in AUGMENTS if known == asked.augment), None)
    if kind is None:
        raise OptionError(f"--augment is {', '.join(AUGMENTS)}, not '{printable(asked.augment)}'.")
    found = list_videos(asked)
    say = print_line if look else silent
    plan = make_plan(options, report=say)
    if not asked.plans:
        decisive = json.dumps([asked.videos, plan_settings(plan)])
        key = hashlib.sha256(decisive.encode()).hexdigest()[:8]
        asked = dataclasses.replace(asked, plans=str(folder / f"clips-{key}.json"))
    store = clip_store(
        Path(asked.plans),
        found.videos,
        plan,
        failures=found.failures,
        workers=workers,
        report=say,
        look=look,
        tile_rows=asked.tile_rows,
    )
    for failure in store.failures():
        of = f" ({failure.set_name})" if failure.set_name is not None else ""
        say(f"cannot be read: {printable(failure.video)} [{failure.reason}] {failure.detail}{of}")
    networks = {name: clip_network(of) for name, of in store.sets.items()}
    return Videos(store, ClipReader(store, augment=kind, workers=workers), networks), plan, asked


def clip_network(of: ClipSet) -> ClipNetwork:
    """What a head needs to know of the network of a set."""
    import torch

    from extract.clips import PictureSet, SoundSet
    from heads.end_to_end import ClipNetwork

    if isinstance(of, SoundSet):
        shape = (1, *of.backbone.example_shape)
        return ClipNetwork(of.backbone, of.backbone.name, of.spec.granularity, shape, torch.float32)
    assert isinstance(of, PictureSet), "what else is there?"
    network, clip = of.network, of.network.backbone.clip
    tile = of.tile_rows * network.stride + 2 * clip.halo
    return ClipNetwork(
        network.backbone,
        network_name(network.backbone.name, network.backbone.stream),
        of.level,
        (tile if network.convolutional else network.window, clip.crop, clip.crop, len(clip.mean)),
        convolutional=network.convolutional,
        rows=of.tile_rows if network.convolutional else None,
    )


def commands_for_new_videos(run: Path, asked: Asked, networks: Iterable[str], beside: Iterable[str]) -> list[str]:
    """The commands that label videos with a finished run: rows as it was trained on, then the scores of its head.

    Args:
        networks: names of all that the run has; those that learned lie in its folder.
        beside: stores of the rows that none of them makes, for whose likes of the new videos a place is kept.
    """
    from extract.backbone import AudioBackbone, backbone_class
    from extract.weights import owner_of, parse_weight_choices
    from heads.stored_run import STORED, weights_file

    chosen = parse_weight_choices(asked.weights, asked.backbones)
    words = ["vl", "extract", "--backbone", ",".join(asked.backbones)]
    for option, values in (("--level", ("scene",) if asked.scenes else asked.levels), ("--stream", asked.streams)):
        words += [option, ",".join(values)] if values else []
    for option, given in (("--fps", asked.fps), ("--stride", asked.stride), ("--window", asked.frames)):
        for name, value in given.items():
            words += [option, f"{name}={value:g}" if name else f"{value:g}"]
    for option, choice in (
        ("--dense", None if asked.scenes else asked.dense or "windowed"),
        ("--flow", asked.flow),
        ("--scene-detector", asked.cutting.get("detector")),
        ("--min-scene", asked.cutting.get("min_scene")),
        ("--max-scene", asked.cutting.get("max_scene")),
    ):
        words += [option, str(choice)] if choice is not None else []
    for name in networks:
        file = weights_file(run, name)
        weights = str(file) if file.is_file() else chosen.get(name, chosen.get(owner_of(name)))
        words += ["--weights", f"{name}={weights}"] if weights is not None else []
    if any(issubclass(backbone_class(name), AudioBackbone) for name in asked.backbones):
        words += ["--missing-audio", "skip"]  # as the run did
    predict = ["vl", "predict", "new.zarr", *(f"NEW_{Path(store).name}" for store in beside), "--head"]
    return [shlex.join([*words, "NEW_VIDEOS", "--out", "new.zarr"]), shlex.join([*predict, str(run / STORED)])]


def silent(_text: str) -> None:
    """What the first process says, the others need not repeat."""
