import pytest
import torch
from torch import Tensor, nn

from extract.i3d import InceptionI3d
from extract.tiling import Tile, Tiler, Windower, repeat_last_frame
from extract.weights import fill_randomly
from stores.spec import Granularity

LEVELS = frozenset({Granularity.CLIP, Granularity.MAP})


def numbered(frames: int) -> Tensor:
    """A video whose frame i holds the number i."""
    return torch.arange(frames).view(-1, 1, 1, 1)


def cut(cutter: Tiler | Windower, video: Tensor, chunk: int) -> list[Tile]:
    tiles = []
    for start in range(0, len(video), chunk):
        tiles += cutter.push(video[start : start + chunk])
    return tiles + cutter.finish()


@pytest.fixture(scope="module")
def net() -> InceptionI3d:
    """Random weights in float64 whose batch norms shift, so that a border is not just zeros."""
    net = InceptionI3d()
    fill_randomly(net, 3)
    torch.manual_seed(3)
    for module in net.modules():
        if isinstance(module, nn.BatchNorm3d):
            nn.init.uniform_(module.bias, -0.2, 0.5)
    return net.double()


def video(frames: int) -> Tensor:
    generator = torch.Generator().manual_seed(frames)
    return torch.randint(0, 256, (frames, 16, 16, 3), dtype=torch.uint8, generator=generator)


def tiled(net: InceptionI3d, frames: Tensor, length: int, halo: int) -> dict[Granularity, Tensor]:
    parts: dict[Granularity, list[Tensor]] = {level: [] for level in LEVELS}
    for tile in cut(Tiler(length=length, stride=8, halo=halo), frames, chunk=50):
        rows = net(tile.frames.unsqueeze(0), LEVELS, convolutional=True)
        for level in LEVELS:
            assert tile.first_row == sum(map(len, parts[level]))
            parts[level].append(rows[level][0, tile.keep])
    return {level: torch.cat(rows) for level, rows in parts.items()}


@pytest.mark.parametrize(
    ("frames", "length"),
    [(n, 160) for n in (1, 7, 8, 9, 48, 97, 200, 333)] + [(200, 104), (333, 256), (97, 104), (200, 200)],
)
@torch.inference_mode()
def test_tiled_equals_whole(net: InceptionI3d, frames: int, length: int) -> None:
    whole = net(video(frames).unsqueeze(0), LEVELS, convolutional=True)
    parts = tiled(net, video(frames), length, halo=net.clip.halo)
    for level in LEVELS:
        assert len(parts[level]) == -(-frames // 8)
        torch.testing.assert_close(parts[level], whole[level][0], rtol=0, atol=1e-12)


@torch.inference_mode()
def test_a_shorter_halo_does_not_do(net: InceptionI3d) -> None:
    whole = net(video(333).unsqueeze(0), LEVELS, convolutional=True)[Granularity.CLIP][0]
    parts = tiled(net, video(333), 160, halo=40)[Granularity.CLIP]
    assert (parts - whole).abs().max() > 1e-6


@pytest.mark.parametrize("chunk", [1, 7, 64, 1000])
@pytest.mark.parametrize("length", [24, 32, 56])
def test_tiles_give_every_row_once_with_its_context(length: int, chunk: int) -> None:
    halo, stride = 8, 4
    for frames in (*range(1, 70), 200):
        row = 0
        tiles = cut(Tiler(length=length, stride=stride, halo=halo), numbered(frames), chunk)
        assert (len(tiles) == 1) == (frames <= length)
        for tile in tiles:
            assert tile.first_row == row
            kept = range(tile.keep.start, tile.keep.stop)
            first_frame = (tile.first_row - kept.start) * stride
            end = first_frame + len(tile.frames)
            expected = numbered(frames)[first_frame:end].flatten().tolist()
            expected += [frames - 1] * (len(tile.frames) - len(expected))
            assert tile.frames.flatten().tolist() == expected
            assert tile.padded == (end > frames)
            assert len(tile.frames) == length or end >= frames  # only the last tile is shorter
            assert first_frame <= max(0, row * stride - halo)
            row += tile.num_rows
            assert end >= min(frames, row * stride + halo)
        assert row == -(-frames // stride)


def test_a_video_without_frames_has_no_tiles() -> None:
    assert cut(Tiler(length=24, stride=4, halo=8), numbered(8)[:0], 1) == []
    assert cut(Windower(window=4, stride=2), numbered(8)[:0], 1) == []


@pytest.mark.parametrize("chunk", [1, 3, 100])
@pytest.mark.parametrize(("window", "stride"), [(8, 2), (4, 4), (1, 1), (1, 3), (2, 5), (5, 3)])
def test_windows_follow_until_one_reaches_the_end(window: int, stride: int, chunk: int) -> None:
    for frames in range(1, 30):
        expected: list[tuple[list[int], bool]] = []
        start = 0
        while start < frames:
            inside = [min(i, frames - 1) for i in range(start, start + window)]
            expected.append((inside, start + window > frames))
            if start + window >= frames:
                break
            start += stride
        assert len(expected) == min(1 + -(-max(frames - window, 0) // stride), -(-frames // stride))
        tiles = cut(Windower(window=window, stride=stride), numbered(frames), chunk)
        assert [(tile.frames.flatten().tolist(), tile.padded) for tile in tiles] == expected
        assert [tile.first_row for tile in tiles] == list(range(len(tiles)))
        assert all(tile.num_rows == 1 for tile in tiles)


@pytest.mark.parametrize("cutter", [Tiler(length=24, stride=4, halo=8), Windower(window=24, stride=4)])
def test_the_caller_may_reuse_its_memory(cutter: Tiler | Windower) -> None:
    memory = torch.empty(10, 1, 1, 1, dtype=torch.int64)
    tiles = []
    for start in range(0, 50, 10):
        memory.copy_(numbered(50)[start : start + 10])
        tiles += cutter.push(memory)
        memory.fill_(-1)
    tiles += cutter.finish()
    assert min(int(tile.frames.min()) for tile in tiles) == 0


@pytest.mark.parametrize("cutter", [Tiler(length=24, stride=4, halo=8), Windower(window=24, stride=4)])
def test_memory_does_not_grow_with_the_video(cutter: Tiler | Windower) -> None:
    for start in range(0, 5000, 10):
        cutter.push(numbered(5000)[start : start + 10])
        storages = [piece.untyped_storage() for piece in cutter.held.pieces]  # a slice keeps all it is cut from
        assert sum(storage.nbytes() for storage in storages) <= 8 * (24 + 3 * 10)


def test_the_last_frame_is_repeated_up_to_the_multiple() -> None:
    assert repeat_last_frame(numbered(5), 4).flatten().tolist() == [0, 1, 2, 3, 4, 4, 4, 4]
    assert repeat_last_frame(numbered(4), 4).flatten().tolist() == [0, 1, 2, 3]
    assert repeat_last_frame(numbered(3).view(1, 3), 5, dim=1).tolist() == [[0, 1, 2, 2, 2]]
