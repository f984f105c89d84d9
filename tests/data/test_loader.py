"""Batches: the same for any number of workers, every image once, decided by (seed, epoch, uid) alone."""

import dataclasses
import os
import pickle
from itertools import chain

import numpy as np
import pytest
import torch

from catheters.checkpoints.parts import build_preprocessing
from catheters.config.settings import Settings
from catheters.data.augmentation import Augmentation
from catheters.data.batch import Batch
from catheters.data.cache.cache import CacheError, open_cache
from catheters.data.cache.row_checks import RowChecks
from catheters.data.cache.writer import build_cache
from catheters.data.gpu_augmentation import GpuAugmentation
from catheters.data.loader import BatchesInOrder, EpochBatches, EpochLoader, create_loader
from catheters.data.samples import CachedRadiographs, sample_seed
from catheters.data.tables.label_table import read_label_table
from catheters.runs.build import build_table_source
from tests.data.chains import FULL_CHAIN

CPU = torch.device("cpu")


def samples(settings: Settings, rows: list[int], augment: bool = True) -> CachedRadiographs:
    table = read_label_table(build_table_source(settings))
    chosen = np.array(rows)
    augmentation = Augmentation(FULL_CHAIN, settings.image_shape) if augment else None
    cache_file = open_cache(settings.cache_file, table, build_preprocessing(settings)).file
    return CachedRadiographs(cache_file, chosen, table.uids[chosen], table.labels[chosen], augmentation, settings.seed)


def epochs(settings: Settings, num_workers: int, num_epochs: int = 2) -> list[list[Batch]]:
    data = samples(settings, list(range(40)))
    loader = create_loader(data, EpochBatches(len(data), 8, settings.seed), num_workers, CPU)
    return [list(loader) for _ in range(num_epochs)]


def test_shapes_and_content(cached: Settings) -> None:
    data = samples(cached, [3, 1, 2], augment=False)
    loader = create_loader(data, BatchesInOrder(3, 2), 0, CPU)
    batches = list(loader)
    assert [len(batch) for batch in batches] == [2, 1]
    images, targets = Batch.concatenate(batches).tensors().values()
    table = read_label_table(build_table_source(cached))
    cache = open_cache(cached.cache_file, table, build_preprocessing(cached))
    assert images.dtype == torch.uint8
    assert targets.dtype == torch.float32
    assert images.shape == (3, 1, 32, 32)
    assert (images[:, 0].numpy() == cache.images[[3, 1, 2]]).all()
    assert (targets.numpy() == table.labels[[3, 1, 2]]).all()


@pytest.mark.filterwarnings("ignore:This DataLoader will create 4 worker processes")
@pytest.mark.parametrize("num_workers", [1, 2, 4])
def test_number_of_workers_changes_nothing(cached: Settings, num_workers: int) -> None:
    for expected, got in zip(epochs(cached, 0), epochs(cached, num_workers), strict=True):
        for batch, other in zip(expected, got, strict=True):
            assert torch.equal(batch.images, other.images)
            assert torch.equal(batch.targets, other.targets)


def test_epochs_differ_in_order_and_augmentation(cached: Settings) -> None:
    first, second = epochs(cached, 0)
    assert any(not torch.equal(a.targets, b.targets) for a, b in zip(first, second, strict=True))
    data = samples(cached, [0])
    assert not torch.equal(data[0, 0]["images"], data[1, 0]["images"])


def test_an_image_is_augmented_alike_whatever_else_is_there(cached: Settings) -> None:
    """Position, other images and order do not matter: only seed, epoch and uid do."""
    assert torch.equal(samples(cached, [5, 9])[3, 1]["images"], samples(cached, [9])[3, 0]["images"])


def test_no_two_images_share_draws() -> None:
    """The workers of a naive albumentations loader repeat each other; here 4,000 samples have 4,000 seeds."""
    seeds = {sample_seed(0, epoch, uid) for epoch in range(4) for uid in range(1000)}
    assert len(seeds) == 4000


def test_epoch_batches() -> None:
    batches = EpochBatches(num_samples=10, batch_size=4, seed=0)
    assert len(batches) == 2
    left_out = []
    for epoch in range(20):
        keys = [key for batch in batches for key in batch]
        assert {key[0] for key in keys} == {epoch}
        positions = [position for _, position in keys]
        assert len(set(positions)) == len(positions) == 8
        left_out.append(frozenset(range(10)) - frozenset(positions))
    assert len(set(left_out)) > 5  # not always the same images
    assert list(EpochBatches(10, 4, seed=0)) != list(EpochBatches(10, 4, seed=1))


def test_batches_to_accumulate_are_parts_of_larger_ones() -> None:
    large = EpochBatches(23, 6, seed=5)
    small = EpochBatches(23, 2, seed=5, multiple_of=3)
    for _ in range(2):
        parts = list(small)
        assert len(parts) == len(small) == 9
        assert [parts[i] + parts[i + 1] + parts[i + 2] for i in (0, 3, 6)] == list(large)


@pytest.mark.parametrize("num_done", [0, 1, 4, 5])
def test_an_epoch_resumes_where_it_was(num_done: int) -> None:
    """No key of the batches that are done is given out, so nothing of them is read; the next epoch is whole."""
    whole = EpochBatches(23, 4, seed=5)
    epochs = [list(whole) for _ in range(3)]
    batches = EpochBatches(23, 4, seed=5)
    batches.epoch, batches.num_done = 1, num_done
    assert len(batches) == 5
    assert list(batches) == epochs[1][num_done:]
    assert list(batches) == epochs[2]


@pytest.mark.parametrize("num_processes", [2, 3, 4])
def test_every_rank_has_its_part_of_each_batch(num_processes: int) -> None:
    whole = EpochBatches(40, 12, seed=5, multiple_of=2)
    parts = [
        EpochBatches(40, 12, seed=5, multiple_of=2, rank=rank, num_processes=num_processes)
        for rank in range(num_processes)
    ]
    for _ in range(2):
        of_all = [list(part) for part in parts]
        assert [list(chain(*batch)) for batch in zip(*of_all, strict=True)] == list(whole)


@pytest.mark.parametrize(("num_samples", "num_processes"), [(10, 1), (10, 2), (11, 4), (3, 4)])
def test_every_rank_has_its_part_of_the_images_in_order(num_samples: int, num_processes: int) -> None:
    """Each image once, none twice; the ranks know each other's numbers."""
    parts = [BatchesInOrder(num_samples, 2, rank, num_processes) for rank in range(num_processes)]
    positions = [[position for batch in part for _, position in batch] for part in parts]
    assert list(chain(*positions)) == list(range(num_samples))
    for part, own in zip(parts, positions, strict=True):
        assert part.counts == tuple(map(len, positions))
        assert len(part) == len(list(part)) == -(-len(own) // 2)
        assert part.max_length == max(map(len, parts))


def test_fewer_samples_than_a_batch() -> None:
    assert [len(batch) for batch in EpochBatches(num_samples=3, batch_size=8, seed=0)] == [3]


def test_batches_in_order() -> None:
    batches = BatchesInOrder(num_samples=5, batch_size=2)
    assert list(batches) == [[(0, 0), (0, 1)], [(0, 2), (0, 3)], [(0, 4)]]
    assert len(batches) == 3


def test_a_cache_that_was_made_anew_meanwhile_is_not_read(cached: Settings) -> None:
    """Its rows may be others: a running training must not resume with them."""
    data = samples(cached, [0, 1, 2], augment=False)
    other = dataclasses.replace(cached, cache_name="other", num_folds=3)
    table = read_label_table(build_table_source(cached))
    build_cache(table.take(np.arange(len(table))[::-1]), other.cache_file, build_preprocessing(other))
    other.cache_file.replace(cached.cache_file)
    with pytest.raises(CacheError, match=r"tiny_32\.npy: was rebuilt meanwhile, and its rows may be others"):
        data[0, 0]


def test_a_cache_that_becomes_shorter_is_damaged(cached: Settings) -> None:
    """A full disk or a careless copy, while training reads it."""
    data = samples(cached, [0, 39], augment=False)
    first = data[0, 0]["images"]
    os.truncate(cached.cache_file, cached.cache_file.stat().st_size - 1)
    assert torch.equal(data[0, 0]["images"], first)
    with pytest.raises(CacheError, match=r"tiny_32\.npy: damaged: ends within row 39"):
        data[0, 1]


def test_samples_can_be_sent_to_another_process(cached: Settings) -> None:
    """Where processes are not forked, they get a copy, which opens the file again."""
    data = samples(cached, [0, 1, 2], augment=True)
    sample = data[3, 2]
    copied = pickle.loads(pickle.dumps(data))
    assert torch.equal(copied[3, 2]["images"], sample["images"])
    assert torch.equal(copied[3, 2]["targets"], sample["targets"])


def test_an_item_is_the_row_of_the_cache(cached: Settings) -> None:
    """As anybody reads it with numpy."""
    images = np.load(cached.cache_file)
    data = samples(cached, [7, 0, 39], augment=False)
    for position, row in enumerate([7, 0, 39]):
        assert np.array_equal(data[0, position]["images"].numpy()[0], images[row])


@pytest.mark.parametrize("num_workers", [0, 1])
def test_an_epoch_that_is_started_early_is_the_same(cached: Settings, num_workers: int) -> None:
    def create() -> EpochLoader:
        data = samples(cached, list(range(40)))
        return EpochLoader(create_loader(data, EpochBatches(len(data), 8, cached.seed), num_workers, CPU))

    def images(loader: EpochLoader) -> torch.Tensor:
        return torch.cat([batch.images for batch in loader])

    plain = create()
    expected = []
    for epoch in range(3):
        plain.go_to(epoch, 0)
        expected.append(images(plain))
    loader = create()
    assert torch.equal(images(loader), expected[0])
    loader.start(1)
    loader.go_to(1, 0)
    assert torch.equal(images(loader), expected[1])
    loader.start(2)
    loader.go_to(1, 3)  # a run resumes elsewhere than was thought
    assert torch.equal(images(loader), expected[1][24:])
    loader.start(2)
    assert torch.equal(images(loader), expected[2])
    assert len(loader) == 5


def test_what_the_device_augments_comes_with_its_draws(cached: Settings) -> None:
    """The image as it is in the cache, and the draws of its seed."""
    table = read_label_table(build_table_source(cached))
    cache_file = open_cache(cached.cache_file, table, build_preprocessing(cached)).file
    augmentation = GpuAugmentation(FULL_CHAIN, cached.image_shape)
    chosen = np.array([5, 9, 11])
    data = CachedRadiographs(cache_file, chosen, table.uids[chosen], table.labels[chosen], augmentation, cached.seed)
    (batch,) = create_loader(data, BatchesInOrder(3, 3), 0, CPU)
    assert np.array_equal(batch.images[:, 0].numpy(), np.load(cached.cache_file)[chosen])
    assert np.array_equal(batch.targets.numpy(), table.labels[chosen])
    assert batch.draws is not None
    for position in range(3):
        assert np.array_equal(batch.draws[position].numpy(), augmentation.draw(data.augmentation_seed(0, position)))


@pytest.mark.parametrize("num_workers", [0, 2])
def test_a_damaged_row_is_named_at_its_first_read(cached: Settings, num_workers: int) -> None:
    """One bit of row 23, lost after the cache was opened, where 32 rows are compared: of this small one, all."""
    table = read_label_table(build_table_source(cached))
    cache = open_cache(cached.cache_file, table, build_preprocessing(cached))
    whole = np.array(cache.images)
    content = bytearray(cached.cache_file.read_bytes())
    content[-(len(table) - 23) * whole[0].nbytes + 100] ^= 1
    mtime_ns = cached.cache_file.stat().st_mtime_ns
    cached.cache_file.write_bytes(content)
    os.utime(cached.cache_file, ns=(mtime_ns, mtime_ns))
    data = CachedRadiographs(cache.file, cache.rows, table.uids, table.labels, None, seed=0, checks=RowChecks.of(cache))
    loader = create_loader(data, BatchesInOrder(len(data), 8), num_workers, CPU)
    batches = iter(loader)
    for start in (0, 8):
        assert np.array_equal(next(batches).images[:, 0].numpy(), whole[start : start + 8])
    with pytest.raises(CacheError, match=rf"damaged: row 23, {table.uids[23]}, is not what was written"):
        list(batches)


@pytest.mark.slow
def test_rows_are_compared_once_by_all_workers(cached: Settings) -> None:
    """A row that changes after it was compared is not read against its checksum again, by no worker of no epoch."""
    table = read_label_table(build_table_source(cached))
    cache = open_cache(cached.cache_file, table, build_preprocessing(cached))
    checks = RowChecks.of(cache)
    data = CachedRadiographs(cache.file, cache.rows, table.uids, table.labels, None, seed=0, checks=checks)
    list(create_loader(data, BatchesInOrder(20, 4), 2, CPU))
    black = np.zeros_like(cache.images[0])
    for row in range(20):
        checks.check(row, black)
    with pytest.raises(CacheError, match="row 20, "):
        checks.check(20, black)
