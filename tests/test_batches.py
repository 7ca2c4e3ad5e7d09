from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from functools import partial

import keras
import numpy as np
import pytest

from data.augment import random_view, random_warp
from data.batches import Batches, LazyImages
from pipeline.fitting import fit

COUNT = 7


def numbered_images(count=COUNT):
    """Images (count, 4, 4, 3), uint8, each filled with its own number."""
    return np.tile(np.arange(count, dtype=np.uint8)[:, None, None, None], (1, 4, 4, 3))


def textured_images():
    return np.random.default_rng(0).integers(0, 256, (COUNT, 12, 16, 3), dtype=np.uint8)


def numbers(batches):
    """The images' numbers in the order in which the batches hold them."""
    return [int(image[0, 0, 0]) for k in range(len(batches)) for image in batches[k][0]]


def read(batches, order=None):
    """All batches, read in some order, as a list in their own order."""
    found = {k: batches[k] for k in order or range(len(batches))}
    return [found[k] for k in range(len(batches))]


def same(first, second):
    return all(np.array_equal(a, b) for x, y in zip(first, second, strict=True) for a, b in zip(x, y, strict=True))


def test_labels_come_as_float_vectors():
    batches = Batches(numbered_images(), np.eye(COUNT, dtype=np.uint8), batch_size=3)
    images, labels = batches[1]
    assert (images.shape, images.dtype) == ((3, 4, 4, 3), np.uint8)
    assert labels.dtype == np.float32
    np.testing.assert_array_equal(labels, np.eye(COUNT)[3:6])


def test_masks_come_as_one_channel_from_0_to_1():
    masks = np.zeros((COUNT, 4, 4), np.uint8)
    masks[3, 0, 0], masks[3, 0, 1] = 255, 51
    images, targets = Batches(numbered_images(), masks, batch_size=3)[1]
    assert images.shape == (3, 4, 4, 3)
    assert (targets.shape, targets.dtype) == ((3, 4, 4, 1), np.float32)
    np.testing.assert_allclose(targets[0, 0, :, 0], [1, 0.2, 0, 0], rtol=1e-6)


def test_without_targets_a_batch_is_images_alone():
    batch = Batches(numbered_images(), batch_size=3)[0]
    assert isinstance(batch, tuple)
    assert [(part.shape, part.dtype) for part in batch] == [((3, 4, 4, 3), np.uint8)]


def test_last_batch_holds_the_rest():
    batches = Batches(numbered_images(), batch_size=3)
    assert [len(batches[k][0]) for k in range(len(batches))] == [3, 3, 1]
    assert len(Batches(numbered_images(6), batch_size=3)) == 2


def test_order_is_kept_without_shuffling():
    batches = Batches(numbered_images(), batch_size=3)
    assert numbers(batches) == list(range(COUNT))
    batches.epoch = 1
    assert numbers(batches) == list(range(COUNT))


def test_every_sample_comes_once_an_epoch_with_its_own_target():
    batches = Batches(numbered_images(), np.eye(COUNT), batch_size=3, shuffle=True)
    for batches.epoch in range(3):
        assert sorted(numbers(batches)) == list(range(COUNT))
        assert numbers(batches) == [int(k) for _, labels in read(batches) for k in labels.argmax(axis=1)]


def test_each_epoch_and_seed_has_its_own_order_and_going_back_repeats_it():
    orders = {}
    for seed in range(2):
        batches = Batches(numbered_images(30), batch_size=4, shuffle=True, seed=seed)
        for batches.epoch in range(2):
            orders[seed, batches.epoch] = numbers(batches)
        batches.epoch = 0
        assert numbers(batches) == orders[seed, 0]
    assert len({tuple(order) for order in orders.values()}) == 4


def test_the_order_is_drawn_once_an_epoch_however_many_threads_ask():
    batches = Batches(numbered_images(200), batch_size=2, shuffle=True)
    orders = []
    for batches.epoch in (0, 1, 0):
        orders.append(batches.order())
        with ThreadPoolExecutor(4) as pool:
            assert all(order is orders[-1] for order in pool.map(lambda _: batches.order(), range(100)))
    assert (orders[0] != orders[1]).any()
    np.testing.assert_array_equal(orders[0], orders[2])


def test_each_epoch_and_sample_has_its_own_warp_and_going_back_repeats_it():
    draws = []

    def note(rng, image, mask=None):
        draws.append(rng.random())
        return image, mask

    batches = Batches(numbered_images(), batch_size=3, augment=note)
    for batches.epoch in (0, 1, 0):
        read(batches)
    assert draws[2 * COUNT :] == draws[:COUNT]
    assert len(set(draws)) == 2 * COUNT


def test_batches_do_not_depend_on_threads_or_on_the_order_of_access():
    masks = np.where(textured_images()[..., 0] > 127, np.uint8(255), np.uint8(0))
    alone, threaded = (
        Batches(textured_images(), masks, batch_size=3, augment=random_warp, shuffle=True, seed=5, workers=workers)
        for workers in (1, 3)
    )
    for epoch in range(2):
        alone.epoch = threaded.epoch = epoch
        assert same(read(alone), read(threaded, order=[2, 0, 1]))


def test_mask_is_warped_with_its_image():
    masks = np.where(textured_images()[..., 0] > 127, np.uint8(255), np.uint8(0))
    images = np.stack([masks] * 3, axis=-1)
    flips_only = partial(random_warp, rotation=0, shift=0)
    batches = Batches(images, masks, batch_size=COUNT, augment=flips_only)
    warped, targets = batches[0]
    assert not np.array_equal(warped, images)
    np.testing.assert_array_equal(warped[..., :1] / np.float32(255), targets)


def test_lazy_reads_only_what_is_asked_for():
    asked = []
    sequence = LazyImages(lambda item: asked.append(item) or np.zeros(2), (f"{k}.png" for k in range(COUNT)))
    batches = Batches(sequence, batch_size=3)
    assert (len(sequence), len(batches)) == (COUNT, 3)
    assert asked == []
    batches[1]
    assert asked == ["3.png", "4.png", "5.png"]


@pytest.mark.parametrize(("keep", "reads"), [(False, 6), (True, 3)])
def test_what_is_kept_in_memory_is_read_once_and_stays_as_it_was(keep, reads):
    asked = []
    images = textured_images()

    def decode(item):
        asked.append(item)
        return images[item].copy()

    sequence = LazyImages(decode, range(3), keep)
    batches = Batches(sequence, batch_size=3, augment=partial(random_view, cutout=0.9))
    first, again = batches[0][0], batches[0][0]
    assert len(asked) == reads
    np.testing.assert_array_equal(first, again)
    np.testing.assert_array_equal(sequence[1], images[1])


def tiny_model(learning_rate):
    """A compiled softmax regression on the mean colour, with fixed first weights."""
    keras.utils.set_random_seed(0)
    inputs = keras.Input((4, 4, 3))
    x = keras.layers.GlobalAveragePooling2D()(keras.layers.Rescaling(1 / 255)(inputs))
    model = keras.Model(inputs, keras.layers.Dense(2, activation="softmax")(x))
    model.compile(optimizer=keras.optimizers.SGD(learning_rate), loss="categorical_crossentropy")
    return model


def test_in_a_real_fit_every_epoch_sees_its_own_batches_in_their_order(tmp_path):
    draws = []

    def repaint(rng, image, mask=None):
        draws.append(rng.random())
        return rng.integers(0, 256, image.shape, dtype=np.uint8), mask

    labels = np.eye(2, dtype=np.float32)[[0, 1, 0, 1, 1, 0, 0]]
    settings = {"batch_size": 3, "augment": repaint, "shuffle": True, "seed": 4}
    training = Batches(numbered_images(), labels, **settings, workers=2)
    validation = Batches(numbered_images(), labels, batch_size=4, workers=2)
    history = fit(tiny_model(learning_rate=0.5), training, validation, epochs=3, folder=tmp_path)
    assert history["epoch"].tolist() == [1, 2, 3]
    seen = Counter(draws)

    # The same by hand: the loss of each batch, then the step on it.
    reference, model = Batches(numbered_images(), labels, **settings), tiny_model(learning_rate=0.5)
    for reference.epoch in range(3):
        draws.clear()
        loss = 0
        for images, targets in read(reference):
            loss += len(images) * float(model.evaluate(images, targets, verbose=0)) / COUNT
            model.train_on_batch(images, targets)
        assert history["loss"][reference.epoch] == pytest.approx(loss, rel=1e-4)
        # Keras looks into the first epoch's batches beforehand, for their shapes; each later one is read once.
        counts = {seen.pop(draw) for draw in draws}
        assert counts == {1} if reference.epoch else min(counts) >= 1
    assert not seen


def test_fit_stops_after_its_patience_and_restores_the_best_weights(tmp_path):
    images = np.repeat(np.uint8([0, 255]), 4)[:, None, None, None] * np.ones((1, 4, 4, 3), np.uint8)
    labels = np.eye(2, dtype=np.float32)[[0] * 4 + [1] * 4]
    model = tiny_model(learning_rate=0.5)
    # With the labels swapped, whatever training learns makes validation worse: the first epoch is the best.
    validation = Batches(images, labels[:, ::-1], batch_size=8)
    history = fit(model, Batches(images, labels, batch_size=8), validation, epochs=9, folder=tmp_path, patience=2)
    assert len(history) == 3
    assert history["val_loss"].is_monotonic_increasing
    restored = float(model.evaluate(images, labels[:, ::-1], verbose=0))
    assert restored == pytest.approx(history["val_loss"][0], rel=1e-5)
    assert restored < 0.99 * history["val_loss"][2]


def drawn(weights, per_epoch, epochs=50):
    """How often each image came, (epochs, images)."""
    batches = Batches(
        numbered_images(), batch_size=3, shuffle=True, weights=np.array(weights, float), per_epoch=per_epoch
    )
    counts = []
    for batches.epoch in range(epochs):
        counts.append(np.bincount(numbers(batches), minlength=COUNT))
    return np.array(counts)


def test_weights_say_how_often_an_image_comes_up_to_rounding():
    weights = np.array([1, 1, 1, 1, 2, 0.5, 3])
    counts = drawn(weights, per_epoch=19)
    expected = 19 * weights / weights.sum()
    assert (counts.sum(axis=1) == 19).all()
    assert (counts >= np.floor(expected)).all()
    assert (counts <= np.ceil(expected)).all()
    np.testing.assert_allclose(counts.mean(axis=0), expected, atol=0.2)


def test_images_that_come_again_in_an_epoch_are_warped_anew():
    textures = textured_images()
    batches = Batches(
        textures, batch_size=8, augment=random_warp, weights=np.eye(COUNT)[0], per_epoch=8, shuffle=True, seed=1
    )
    (images,) = batches[0]
    assert len({image.tobytes() for image in images}) == 8
    np.testing.assert_array_equal(images, batches[0][0])


def test_what_is_watched_says_which_weights_are_kept(tmp_path):
    images = np.repeat(np.uint8([0, 255]), 4)[:, None, None, None] * np.ones((1, 4, 4, 3), np.uint8)
    labels = np.eye(2, dtype=np.float32)[[0] * 4 + [1] * 4]
    # The loss on swapped labels is best at first; what is watched, its negative as it were, is best at last.
    for monitor, best in (("val_loss", 0), ("val_auc", 3)):
        model = tiny_model(learning_rate=0.5)
        model.compile(
            optimizer=keras.optimizers.SGD(0.5),
            loss="categorical_crossentropy",
            metrics=[keras.metrics.CategoricalCrossentropy(name="auc")],
        )
        validation = Batches(images, labels[:, ::-1], batch_size=8)
        history = fit(model, Batches(images, labels, batch_size=8), validation, 4, tmp_path / monitor, monitor=monitor)
        restored = float(model.evaluate(images, labels[:, ::-1], verbose=0)[0])
        assert restored == pytest.approx(history["val_loss"][best], rel=1e-5)


@pytest.fixture(params=["float32", "mixed_float16"])
def precision(request):
    """Precision of what is built in a test; in float16 Keras wraps the optimizer in one that scales the loss."""
    keras.config.set_dtype_policy(request.param)
    yield request.param
    keras.config.set_dtype_policy("float32")


def test_a_moving_average_is_what_is_validated_and_left(tmp_path, precision):
    images = np.repeat(np.uint8([0, 255]), 4)[:, None, None, None] * np.ones((1, 4, 4, 3), np.uint8)
    labels = np.eye(2, dtype=np.float32)[[0] * 4 + [1] * 4]
    model, momentum = tiny_model(learning_rate=0.5), 0.8
    model.compile(
        optimizer=keras.optimizers.SGD(0.5, use_ema=True, ema_momentum=momentum), loss="categorical_crossentropy"
    )
    batches = Batches(images, labels, batch_size=8)
    history = fit(model, batches, batches, epochs=3, folder=tmp_path)

    reference = tiny_model(learning_rate=0.5)
    average = None
    for _ in range(3):
        reference.train_on_batch(images, labels)
        weights = [np.array(w) for w in reference.get_weights()]
        average = (
            weights if average is None else [momentum * a + 0.2 * w for a, w in zip(average, weights, strict=True)]
        )
    for ours, theirs in zip(model.get_weights(), average, strict=True):
        np.testing.assert_allclose(ours, theirs, atol=1e-5 if precision == "float32" else 1e-3)
    assert np.abs(model.get_weights()[0] - weights[0]).max() > 0.01, "the weights themselves are something else"
    assert float(model.evaluate(images, labels, verbose=0)) == pytest.approx(history["val_loss"][2], rel=1e-3)
