"""Gated local and global attention: frames look at their neighbourhood and at the whole video, for two modalities.

Source: Sahu and Goyal, "Leveraging Local Temporal Information for Multimodal Scene Classification", ICASSP 2022.
Variants: `global` is its baseline, `share` ShareAtt, `gate_att` GateAtt (equation 7), `gate_op` GateOp (9 to 13).
Differs from it: padded frames are masked, and the mean is over each modality's own frames (`pad_mask=false` gives
its zero frames that take part); the rows of a gated map do not sum to one, though the text says so, and are not
scaled to; of its two gates' softmax one sigmoid of their difference is taken, which is the same. What it leaves
open: post-norm blocks, biases, dropout and first weights as in PyTorch's encoder layer (dropout on the gated map);
feed-forward of 2048 and hidden layer of 768, 0.1 MiB above its size on disk; gates without bias.

Shape letters: B videos, T steps of time, D features of a modality, M heads, E features of a head, R queries of a
part, C classes.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Literal, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.checkpoint import checkpoint

from heads.gated_masks import Kind, LocalMask, Variant, local_masks, stacked
from heads.head import Batch, Head, HeadError, Scores
from heads.layers import at_least_float32
from stores.spec import FeatureSpec, Granularity

MAP_ELEMENTS = 2**24  # gated attention maps hold no more numbers at once: 64 MiB each in float32
PARTS = 4  # in which gated attention goes through the queries at least


@dataclass(frozen=True)
class GatedConfig:
    """Sizes and options; `--set` changes all but the first three."""

    num_visual: int  # D of the pictures; 0 where modalities is audio
    num_audio: int  # D of the sound; 0 where modalities is visual
    num_classes: int  # C
    variant: Variant = "gate_op"
    local: Kind = "tp"  # neighbourhood: block (bd), Toeplitz (tp), dilated Toeplitz (td)
    width: int | None = None  # W of the neighbourhood, rows; None: the paper's for variant and kind
    dilation: int | None = None  # L of td, rows
    modalities: Literal["both", "visual", "audio"] = "both"
    num_steps: int = 300  # T that the weights of gate_att are made for, and that videos have without pad_mask
    pad_mask: bool = True  # false: videos are zero-padded to num_steps, and the zeros take part as in the paper
    heads: int = 8  # M
    ffn: int = 2048  # width of the feed-forward of each modality
    hidden: int = 768  # width of the layer before the classifier
    dropout: float = 0.1

    def __post_init__(self) -> None:
        sizes = [*self.widths.values(), self.num_classes, self.num_steps, self.heads, self.ffn, self.hidden]
        if min(sizes) < 1:
            raise HeadError(f"gated needs positive sizes, not {self}.")
        for role, width in self.widths.items():
            if width % self.heads:
                raise HeadError(f"{width} {role} features do not go into {self.heads} heads. Set heads to a divisor.")
        if self.variant == "share" and self.heads != 8:
            raise HeadError(f"variant share has 4 local and 4 global heads, not {self.heads} in all. Set heads=8.")
        if not 0 <= self.dropout < 1:
            raise HeadError(f"dropout is a share in [0, 1), not {self.dropout}.")
        local_masks(self.variant, self.local, self.width, self.dilation)  # refuses what does not fit

    @property
    def widths(self) -> dict[str, int]:
        """Number of features of each modality in use."""
        sizes = {"visual": self.num_visual, "audio": self.num_audio}
        return {role: size for role, size in sizes.items() if self.modalities in ("both", role)}

    @property
    def masks(self) -> tuple[LocalMask, ...]:
        """Of the local attention: none, one for all heads, or one for each local head."""
        return local_masks(self.variant, self.local, self.width, self.dilation)


class Gated(Head):
    """Multi-label scores for a video from frame features of its pictures and its sound."""

    name: ClassVar[str] = "gated"
    level: ClassVar[Literal["row", "video"]] = "video"
    roles: ClassVar[tuple[str, ...]] = ("visual", "audio")
    without: ClassVar[Mapping[str, str]] = {"visual": "modalities=audio", "audio": "modalities=visual"}
    accepts: ClassVar[frozenset[Granularity]] = frozenset({Granularity.FRAME, Granularity.CLIP})
    config_class: ClassVar[type[GatedConfig]] = GatedConfig
    paper: ClassVar[str] = (
        "Sahu and Goyal, Leveraging Local Temporal Information for Multimodal Scene Classification, ICASSP 2022"
    )
    published: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        f"YouTube-8M, {variant}": {"num_visual": 1024, "num_audio": 128, "num_classes": 3862, "variant": variant}
        for variant in ("global", "share", "gate_att", "gate_op")
    }
    published_rows: ClassVar[tuple[int, ...]] = (300,)
    recipe: ClassVar[Mapping[str, Any]] = {
        "optimizer": "adam",
        "lr": 2e-4,
        "weight_decay": 0.0,
        "schedule": "plateau",
        "select": "gap",
        "batch_size": 64,
        "patience": 5,
    }

    @classmethod
    def roles_for(cls, options: Mapping[str, Any]) -> tuple[str, ...]:
        """Both modalities, or the one that `modalities` names."""
        modalities = options.get("modalities", "both")
        return cls.roles if modalities == "both" else (modalities,)

    @classmethod
    def role_of(cls, spec: FeatureSpec) -> str | None:
        """Sound is `audio`, every other stream `visual`."""
        if spec.granularity not in cls.accepts:
            return None
        return "audio" if spec.stream == "audio" else "visual"

    def __init__(self, config: GatedConfig) -> None:
        super().__init__()
        self.config = config
        self.blocks = nn.ModuleDict({role: Block(width, config) for role, width in config.widths.items()})
        self.hidden = nn.Linear(sum(config.widths.values()), config.hidden)
        self.last = nn.Linear(config.hidden, config.num_classes)

    def forward(self, batch: Batch) -> Scores:
        """(B, C) logits."""
        means = [self.mean(*self.frames(batch, role), role) for role in self.blocks]
        return Scores(self.last(self.hidden(torch.cat(means, dim=-1)).relu()))

    def frames(self, batch: Batch, role: str) -> tuple[Tensor, Tensor]:
        """A modality's features (B, T, D), zero where masked, and its mask (B, T).

        Raises:
            HeadError: the batch lacks the modality, or has more steps than the head's weights.
        """
        if role not in batch.features:
            other = "visual" if role == "audio" else "audio"
            raise HeadError(
                f"gated was made for {' and '.join(self.blocks)} rows, and a batch has none of {role}. "
                f"Give it a set of {role} rows, or train with --set modalities={other}."
            )
        x_BTD, mask_BT = batch.features[role], batch.mask[role]
        steps, most = x_BTD.shape[1], self.config.num_steps
        if steps > most and (self.config.variant == "gate_att" or not self.config.pad_mask):
            raise HeadError(
                f"a video has {steps} {role} rows, more than num_steps={most}. Set num_steps={steps} or more."
            )
        x_BTD = x_BTD.masked_fill(~mask_BT[..., None], 0)
        if not self.config.pad_mask:
            x_BTD = functional.pad(x_BTD, (0, 0, 0, most - steps))
        return x_BTD, mask_BT

    def mean(self, x_BTD: Tensor, mask_BT: Tensor, role: str) -> Tensor:
        """(B, D) of a modality, in context; zeros for a video that has no frame of it."""
        seen = see(self.config, mask_BT, x_BTD.shape[1])
        y_BTD: Tensor = self.blocks[role](x_BTD, seen)
        if not self.config.pad_mask:
            return y_BTD.mean(1)
        return (y_BTD * mask_BT[..., None]).sum(1) / mask_BT.sum(1, keepdim=True).clamp(min=1)


class Seen(NamedTuple):
    """Which keys a query may see; every query sees one at least."""

    everywhere: Tensor | None  # (B, 1, 1, T) True for real frames; None: all
    nearby: Tensor | None  # (B or 1, masks, T, T) True for real frames of the neighbourhood


def see(config: GatedConfig, mask_BT: Tensor, steps: int) -> Seen:
    """What the real frames of a video may see; padded ones see themselves, so that their softmax has a number."""
    masks, device = config.masks, mask_BT.device
    nearby = stacked(masks, steps, device) if masks else None
    if not config.pad_mask:
        return Seen(None, nearby)
    everywhere = (mask_BT | ~mask_BT.any(1, keepdim=True))[:, None, None]
    if nearby is not None:
        nearby = (nearby & everywhere) | torch.eye(steps, dtype=torch.bool, device=device)
    return Seen(everywhere, nearby)


class Attention(nn.Module):
    """Self-attention over the whole video, in heads (equations 1 to 4)."""

    def __init__(self, width: int, config: GatedConfig) -> None:
        super().__init__()
        self.num_heads = config.heads
        self.project = nn.Linear(width, 3 * width)  # queries, keys, values
        self.out = nn.Linear(width, width)
        self.dropout = config.dropout
        nn.init.xavier_uniform_(self.project.weight)
        nn.init.zeros_(self.project.bias)
        nn.init.zeros_(self.out.bias)

    def forward(self, x_BTD: Tensor, seen: Seen) -> Tensor:
        """(B, T, D) to the same."""
        out: Tensor = self.out(joined(self.attend(*self.split(x_BTD), seen.everywhere)))
        return out

    def split(self, x_BTD: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Queries, keys and values, each (B, M, T, E)."""
        q, k, v = self.project(x_BTD).unflatten(-1, (3, self.num_heads, -1)).permute(2, 0, 3, 1, 4)
        return q, k, v

    def attend(self, q_BMTE: Tensor, k_BMTE: Tensor, v_BMTE: Tensor, seen: Tensor | None) -> Tensor:
        """(B, M, T, E) what the queries see, in one fused kernel that keeps no map."""
        return functional.scaled_dot_product_attention(q_BMTE, k_BMTE, v_BMTE, seen, self.share_dropped)

    @property
    def share_dropped(self) -> float:
        """Share of attention weights dropped now."""
        return self.dropout if self.training else 0.0


class ShareAtt(Attention):
    """The first half of the heads looks nearby, each through its own mask; the other half everywhere (section 2.2)."""

    def forward(self, x_BTD: Tensor, seen: Seen) -> Tensor:
        """(B, T, D) to the same."""
        (q_local, q), (k_local, k), (v_local, v) = (tensor.chunk(2, dim=1) for tensor in self.split(x_BTD))
        both = (self.attend(q_local, k_local, v_local, seen.nearby), self.attend(q, k, v, seen.everywhere))
        out: Tensor = self.out(joined(torch.cat(both, dim=1)))
        return out


class GateAtt(Attention):
    """One map a head, mixed from its global and its local one by a gate for each element (equation 7)."""

    def __init__(self, width: int, config: GatedConfig) -> None:
        super().__init__(width, config)
        self.reach = config.masks[0].reach
        self.gate_global = nn.Parameter(torch.empty(config.num_steps, config.num_steps))
        self.gate_local = nn.Parameter(torch.empty(config.num_steps, config.num_steps))
        bound = 1 / math.sqrt(config.num_steps)  # nn.Linear's default
        for gate in (self.gate_global, self.gate_local):
            nn.init.uniform_(gate, -bound, bound)

    def forward(self, x_BTD: Tensor, seen: Seen) -> Tensor:
        """(B, T, D) to the same, T at most num_steps.

        A row of the gates depends on the same row of the maps alone: queries go in parts, of which the backward
        pass makes the maps anew, so that there is never a whole map. Of the local map a part has the columns that its
        queries may see. Padding up to num_steps would have maps of 0, so the gates' first T rows and columns are all
        that counts.
        """
        q_BMTE, k_BMTE, v_BMTE = self.split(x_BTD)
        batch, _, steps, _ = q_BMTE.shape
        assert seen.nearby is not None, "variant gate_att has a local mask"
        gate_global, gate_local = self.gate_global[:steps, :steps], self.gate_local[:steps, :steps]
        rows = min(-(-steps // PARTS), max(1, MAP_ELEMENTS // (batch * self.num_heads * steps)))
        parts: list[Tensor] = []
        for start in range(0, steps, rows):
            part = slice(start, start + rows)
            near = slice(max(0, start - self.reach), start + rows + self.reach)
            some = Seen(seen.everywhere, seen.nearby[:, :, part, near])
            given = (q_BMTE[:, :, part], k_BMTE, v_BMTE, some, (gate_global, gate_local[near]), near.start)
            if torch.is_grad_enabled():
                remember = self.share_dropped > 0
                parts.append(checkpoint(self.mixed, *given, use_reentrant=False, preserve_rng_state=remember))
            else:
                parts.append(self.mixed(*given))
        out: Tensor = self.out(joined(torch.cat(parts, dim=2)))
        return out

    def mixed(
        self,
        q_BMRE: Tensor,
        k_BMTE: Tensor,
        v_BMTE: Tensor,
        seen: Seen,
        gates: tuple[Tensor, Tensor],
        first: int = 0,
    ) -> Tensor:
        """(B, M, R, E) what some of the queries see through the mixed map; both maps come from one product.

        Args:
            q_BMRE: queries.
            k_BMTE, v_BMTE: all keys and values.
            seen: `nearby` for the columns that the queries may see locally.
            gates: (T, T), and those of its rows that stand for these columns.
            first: the first of these columns.
        """
        allowed, near_R = seen
        assert near_R is not None, "variant gate_att has a local mask"
        scores_BMRT = at_least_float32((q_BMRE / math.sqrt(q_BMRE.shape[-1])) @ k_BMTE.transpose(-1, -2))
        last = first + near_R.shape[-1]
        local_BMRL = scores_BMRT[..., first:last].masked_fill(~near_R, -torch.inf).softmax(-1)
        if allowed is not None:
            scores_BMRT = scores_BMRT.masked_fill(~allowed, -torch.inf)
        global_BMRT = scores_BMRT.softmax(-1)
        gate_BMRT = torch.sigmoid(at_least_float32(global_BMRT @ gates[0] - local_BMRL @ gates[1]))
        local_BMRT = functional.pad(local_BMRL, (first, scores_BMRT.shape[-1] - last))
        map_BMRT = torch.lerp(local_BMRT, global_BMRT, gate_BMRT)
        return functional.dropout(map_BMRT, self.share_dropped) @ v_BMTE


class GateOp(Attention):
    """What is seen everywhere and what is seen nearby, mixed by a gate for each feature (equations 9 to 13).

    Two fused kernels: making both maps from one product would be no faster on a CPU, and would keep them in memory.
    """

    def __init__(self, width: int, config: GatedConfig) -> None:
        super().__init__(width, config)
        self.out_local = nn.Linear(width, width)
        self.gate_global = nn.Linear(width, width, bias=False)
        self.gate_local = nn.Linear(width, width, bias=False)
        nn.init.zeros_(self.out_local.bias)

    def forward(self, x_BTD: Tensor, seen: Seen) -> Tensor:
        """(B, T, D) to the same."""
        heads = self.split(x_BTD)
        global_BTD, local_BTD = (joined(self.attend(*heads, allowed)) for allowed in seen)
        gate_BTD = torch.sigmoid(at_least_float32(self.gate_global(global_BTD) - self.gate_local(local_BTD)))
        y_local_BTD: Tensor = self.out_local(local_BTD)
        mixed_BTD: Tensor = y_local_BTD + gate_BTD * (self.out(global_BTD) - y_local_BTD)
        return mixed_BTD


ATTENTION: Mapping[Variant, type[Attention]] = {
    "global": Attention,
    "share": ShareAtt,
    "gate_att": GateAtt,
    "gate_op": GateOp,
}


class Block(nn.Module):
    """A post-norm block of a modality: attention, then the feed-forward."""

    def __init__(self, width: int, config: GatedConfig) -> None:
        super().__init__()
        self.attention = ATTENTION[config.variant](width, config)
        self.widen, self.narrow = nn.Linear(width, config.ffn), nn.Linear(config.ffn, width)
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.dropout = nn.Dropout(config.dropout)

    def forward(self, x_BTD: Tensor, seen: Seen) -> Tensor:
        """(B, T, D) to the same."""
        x_BTD = self.norm1(x_BTD + self.dropout(self.attention(x_BTD, seen)))
        out: Tensor = self.norm2(x_BTD + self.dropout(self.narrow(self.dropout(self.widen(x_BTD).relu()))))
        return out


def joined(o_BMTE: Tensor) -> Tensor:
    """(B, T, D): the heads' outputs side by side."""
    return o_BMTE.transpose(1, 2).flatten(2)
