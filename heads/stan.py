"""STAN: a video's scenes as a sequence, read by two transformers, one over pictures and one over motion.

Source: Fish, Weinbren and Gilbert, "Two-Stream Transformer Architecture for Long Form Video Understanding", BMVC
2022; width, layers, dropout, L2 norm and training as in the authors' released code. Collaborative gating from Liu
et al., "Use What You Have", BMVC 2019; distillation from Touvron et al., "Training Data-Efficient Image Transformers
& Distillation Through Attention", ICML 2021.
Differs from it: four layers, which the sizes of Table 4 and the released code have, where the text says two; the
softmax of equation 4 encloses the products of queries and keys alone; the position code has base 10000 (the released
code: 1000), the class token is a learned vector (there: a picture of noise) and the temporal stream reaches the
classifier (there it is lost); all scenes are read, padding is masked (there: cut or padded to 13 or 23). Trunks are
not part of the head: it learns from stored features, in batches of 16 at a rate of 3e-4, for at the authors' 5e-6 in
batches of 2, made for trunks that learn along, it hardly moves. The projection of the temporal features is trained
unless `freeze_proj_t`. Settled here, as the paper leaves it open: a stream alone is scored by one linear layer, for
only that fits Table 4; the LSTM has one layer as wide as the tokens; the gate is a hidden layer of 64, then the gates,
and keeps the scaled sum; distillation is the hard kind, its teacher learns beside its student, known labels alone are
distilled, and each token has a linear classifier, which fits Table 4. The temporal pyramid and the concatenation of
Table 1 are other authors' systems, of which the paper says too little to build them.

Shape letters: B videos, S scenes, D features, C classes, E width of tokens, V learned vectors before the scenes.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional

from heads.head import Batch, Head, HeadError, Scores
from heads.layers import at_least_float32, mean_log_odds
from heads.loss import binary_cross_entropy, known_labels
from heads.stan_streams import STREAMS
from stores.names import printable
from stores.spec import FeatureSpec, Granularity

HIDDEN = 128  # of q; more than 132 would exceed the paper's 45 million
GATE_HIDDEN = 64  # half of it, for the gate reads two vectors
CLASSIFIER = (512, 128)  # hidden layers of h
RESNET18, R2PLUS1D_18 = 11_176_512, 31_300_125  # weights of the trunks, without their classifiers
PUBLISHED: Mapping[str, Any] = {"num_spatial": 512, "num_temporal": 512, "num_classes": 20}


@dataclass(frozen=True)
class StanConfig:
    """Sizes, and the alternatives of the paper's Tables 1 and 4; `--set` changes all but the first three."""

    num_spatial: int  # D of the scenes' central frames; 0 where streams is temporal
    num_temporal: int  # D of the scenes' clips; 0 where streams is spatial
    num_classes: int  # C
    embed: int = 896  # E
    num_layers: int = 4
    num_heads: int = 2
    ffn: int = 512
    dropout: float = 0.5
    pos_enc: bool = True  # sinusoids on the tokens of the transformer
    streams: Literal["both", "spatial", "temporal"] = "both"
    aggregation: Literal["transformer", "mean", "lstm"] = "transformer"  # of scenes into one vector a stream
    fusion: Literal["sum", "gated", "distillation"] = "sum"  # of the two vectors
    temporal_weight: float = 0.6  # lambda of equation 5
    freeze_proj_t: bool = False  # the temporal features' projection stays as drawn
    max_scenes: int | None = None  # a video with more is an error; None: any number
    truncate_scenes: bool = False  # it loses those after max_scenes instead

    def __post_init__(self) -> None:
        widths = {"spatial": self.num_spatial, "temporal": self.num_temporal}
        read = [width for role, width in widths.items() if self.streams in ("both", role)]
        if min(*read, self.num_classes, self.embed, self.num_heads, self.ffn) < 1 or not 1 <= self.num_layers <= 1000:
            raise HeadError(f"stan needs positive sizes and 1 to 1000 layers, not {self}.")
        if self.embed % self.num_heads:
            raise HeadError(f"embed {self.embed} does not divide among {self.num_heads} heads.")
        if not 0 <= self.dropout < 1:
            raise HeadError(f"dropout is a share in [0, 1), not {self.dropout}.")
        if not 0 <= self.temporal_weight <= 1:
            raise HeadError(f"temporal_weight lies in [0, 1], not {self.temporal_weight}.")
        if self.streams != "both" and self.fusion != "sum":
            raise HeadError(f"fusion {self.fusion} needs both streams, not {self.streams} alone.")
        if self.fusion == "distillation" and self.aggregation != "transformer":
            raise HeadError(f"distillation needs the transformer's tokens; aggregation {self.aggregation} has none.")
        if self.freeze_proj_t and self.streams == "spatial":
            raise HeadError("freeze_proj_t needs the temporal stream; streams is spatial.")
        if self.max_scenes is not None and self.max_scenes < 1:
            raise HeadError(f"max_scenes is a positive number or none, not {self.max_scenes}.")
        if self.truncate_scenes and self.max_scenes is None:
            raise HeadError("truncate_scenes needs max_scenes, the number of scenes to keep.")


class Stan(Head):
    """Multi-label scores for every video, from an image and a clip feature of each scene."""

    name: ClassVar[str] = "stan"
    level: ClassVar[Literal["row", "video"]] = "video"
    roles: ClassVar[tuple[str, ...]] = ("spatial", "temporal")
    without: ClassVar[Mapping[str, str]] = {"spatial": "streams=temporal", "temporal": "streams=spatial"}
    equal_times: ClassVar[bool] = True
    accepts: ClassVar[frozenset[Granularity]] = frozenset({Granularity.SCENE})
    config_class: ClassVar[type[StanConfig]] = StanConfig
    paper: ClassVar[str] = (
        "Fish, Weinbren and Gilbert, Two-Stream Transformer Architecture for Long Form Video Understanding, BMVC 2022"
    )
    published: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        "MMX, small, projection frozen, with the ResNet-18": {**PUBLISHED, "freeze_proj_t": True},
        "MMX, small, with the ResNet-18": PUBLISHED,
        "MMX, large, with both trunks": PUBLISHED,
    }
    published_rows: ClassVar[tuple[int, ...]] = (13,)
    published_part: ClassVar[tuple[str, str]] = ("one encoder", "streams.spatial.layers")
    trained_beside: ClassVar[Mapping[str, int]] = dict(
        zip(published, (RESNET18, RESNET18, RESNET18 + R2PLUS1D_18), strict=True)
    )
    recipe: ClassVar[Mapping[str, Any]] = {"optimizer": "adamw", "lr": 3e-4, "weight_decay": 0.09, "batch_size": 16}

    @classmethod
    def roles_for(cls, options: Mapping[str, Any]) -> tuple[str, ...]:
        """Both streams, or the one that `streams` names."""
        streams = options.get("streams", "both")
        return cls.roles if streams == "both" else (streams,)

    @classmethod
    def role_of(cls, spec: FeatureSpec) -> str | None:
        """Scenes seen by an image network (one frame a row) are spatial, by a clip network (more) temporal."""
        if spec.granularity not in cls.accepts or spec.stream == "audio":
            return None
        return "spatial" if spec.window in (None, 1) else "temporal"

    def __init__(self, config: StanConfig) -> None:
        super().__init__()
        self.config = config
        distilled = config.fusion == "distillation"
        kind = STREAMS[config.aggregation]
        self.streams = nn.ModuleDict()
        if config.streams != "temporal":
            self.streams["spatial"] = kind(config.num_spatial, config, num_vectors=2 if distilled else 1)
        if config.streams != "spatial":
            self.streams["temporal"] = kind(config.num_temporal, config, num_vectors=1)
            self.streams["temporal"].project.requires_grad_(not config.freeze_proj_t)
        self.classify: nn.Module
        if distilled:
            self.classify = DistillingClassifiers(config)
        elif config.streams == "both":
            self.classify = FusingClassifier(config)
        else:
            self.classify = nn.Linear(config.embed, config.num_classes)

    def forward(self, batch: Batch) -> Scores:
        """(B, C) logits; `earlier` are the three classifiers' logits where `fusion` is distillation.

        Raises:
            HeadError: a video has more than `max_scenes` scenes and `truncate_scenes` is off.
        """
        return self._scores(batch, maps=False)

    def attention(self, batch: Batch) -> Scores:
        """The scores of `forward`, with `maps`: for each stream of the transformer how its class token attends.

        Returns:
            Maps `spatial` and `temporal` (B, layers, heads, V + S), V class tokens before the scenes.
        """
        return self._scores(batch, maps=True)

    def _scores(self, batch: Batch, *, maps: bool) -> Scores:
        found: dict[str, list[Tensor]] = {role: [] for role in self.streams} if maps else {}
        vectors_BVE = [
            stream(*self._scenes(batch, role), maps=found.get(role)) for role, stream in self.streams.items()
        ]
        attention = {role: torch.stack(weights, 1) for role, weights in found.items() if weights}
        if isinstance(self.classify, nn.Linear):
            return Scores(self.classify(vectors_BVE[0][:, 0]), maps=attention)
        logits_BC, earlier = self.classify(*vectors_BVE)
        return Scores(logits_BC, earlier, attention)

    def loss(self, scores: Scores, batch: Batch) -> Tensor:
        """The cross entropy of the logits; in distillation those of teacher and student, who also learns from it.

        Source of the latter: Touvron et al., equation 3, with a yes or no of the teacher for every class.
        """
        if self.config.fusion != "distillation":
            return super().loss(scores, batch)
        labels_BC, known_BC = known_labels(batch, scores.logits)
        student_BC, taught_BC, teacher_BC = scores.earlier
        decided_BC = (teacher_BC.detach() >= 0).to(labels_BC.dtype)
        from_labels = binary_cross_entropy(student_BC, labels_BC, known_BC)
        from_teacher = binary_cross_entropy(taught_BC, decided_BC, known_BC)
        return binary_cross_entropy(teacher_BC, labels_BC, known_BC) + (from_labels + from_teacher) / 2

    def _scenes(self, batch: Batch, role: str) -> tuple[Tensor, Tensor]:
        x_BSD, mask_BS = batch.features[role], batch.mask[role]
        most = self.config.max_scenes
        if most is None or x_BSD.shape[1] <= most:
            return x_BSD, mask_BS
        if not self.config.truncate_scenes:
            beyond_B = mask_BS[:, most:].any(1).tolist()  # waits for the device, but only where an error is near
            if any(beyond_B):
                named = zip(batch.videos, beyond_B, strict=True) if batch.videos else ()
                which = ", ".join(video for video, beyond in named if beyond) or "a video"
                raise HeadError(
                    f"{printable(which)} has more than {most} scenes, of {x_BSD.shape[1]} in the batch. Raise "
                    "max_scenes, or set truncate_scenes=true."
                )
        return x_BSD[:, :most], mask_BS[:, :most]


class FusingClassifier(nn.Module):
    """The scaled sum of the streams' class tokens, of length 1, through the classifier h (equation 5)."""

    def __init__(self, config: StanConfig) -> None:
        super().__init__()
        self.temporal_weight = config.temporal_weight
        self.q: nn.Module | None = None
        self.gate: nn.Module | None = None
        if config.fusion == "gated":
            self.gate = _perceptron(2 * config.embed, GATE_HIDDEN, config.embed)
        else:
            self.q = _perceptron(config.embed, HIDDEN, config.embed)
        self.h = _perceptron(config.embed, *CLASSIFIER, config.num_classes)

    def forward(self, spatial_BVE: Tensor, temporal_BVE: Tensor) -> tuple[Tensor, tuple[Tensor, ...]]:
        """(B, 1, E) each, to logits (B, C)."""
        spatial_BE, temporal_BE = spatial_BVE[:, 0], temporal_BVE[:, 0]
        if self.gate is not None:  # each stream lets through what it and the other agree on
            gates_BE = [
                torch.sigmoid(self.gate(torch.cat(pair, dim=-1)))
                for pair in ((spatial_BE, temporal_BE), (temporal_BE, spatial_BE))
            ]
            spatial_BE, temporal_BE = spatial_BE * gates_BE[0], temporal_BE * gates_BE[1]
        elif self.q is not None:
            spatial_BE, temporal_BE = self.q(spatial_BE), self.q(temporal_BE)
        sum_BE = spatial_BE + self.temporal_weight * temporal_BE
        unit_BE = functional.normalize(at_least_float32(sum_BE), dim=-1, eps=1e-12).to(sum_BE.dtype)
        return self.h(unit_BE), ()


class DistillingClassifiers(nn.Module):
    """The spatial stream as a student with a class and a distillation token; the temporal stream teaches it."""

    def __init__(self, config: StanConfig) -> None:
        super().__init__()
        self.student, self.taught, self.teacher = (nn.Linear(config.embed, config.num_classes) for _ in range(3))

    def forward(self, spatial_BVE: Tensor, temporal_BVE: Tensor) -> tuple[Tensor, tuple[Tensor, ...]]:
        """(B, 2, E) and (B, 1, E) to the logits (B, C) of the student's mean probability, and those of each part."""
        student_BC = self.student(spatial_BVE[:, 0])
        taught_BC = self.taught(spatial_BVE[:, 1])
        return mean_log_odds(student_BC, taught_BC), (student_BC, taught_BC, self.teacher(temporal_BVE[:, 0]))


def _perceptron(*widths: int) -> nn.Sequential:
    """Linear layers of these widths, GELU between them."""
    layers: list[nn.Module] = []
    for before, after in pairwise(widths):
        layers += [nn.Linear(before, after), nn.GELU()]
    return nn.Sequential(*layers[:-1])
