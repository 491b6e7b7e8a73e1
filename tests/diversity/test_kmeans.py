"""k-means, near-duplicates and the even draw, against scikit-learn and against loops that do the same slowly."""

import numpy as np
import pytest
from sklearn.cluster import KMeans
from sklearn.datasets import make_blobs
from sklearn.metrics import adjusted_rand_score, pairwise_distances
from sklearn.metrics.pairwise import cosine_similarity
from sklearn.preprocessing import normalize

from emcurate.diversity import hierarchy, kmeans, near
from emcurate.diversity import points as points_module
from emcurate.diversity.points import Points, write_points
from emcurate.patches.drawing import allot
from emcurate.running.jobs import Workers
from emcurate.running.report import Report


@pytest.fixture(autouse=True)
def small_jobs(monkeypatch):
    """Several jobs even of so few points."""
    monkeypatch.setattr(points_module, "JOB_ROWS", 300)
    monkeypatch.setattr(kmeans, "JOB_ROWS", 300)
    monkeypatch.setattr(kmeans, "DISTANCES_AT_ONCE", 700)


def clustering(tmp_path, processes=1):
    return kmeans.Clustering(Workers(processes), Report("test"), tmp_path)


def save(tmp_path, array, **changed):
    found = write_points(tmp_path / "points.npy", array)
    return Points(found.path, **changed)


def blobs(count=2000, centres=12, width=7, seed=0):
    return make_blobs(count, width, centers=centres, cluster_std=2.5, random_state=seed)


def test_units_are_those_of_scikit_learn_and_nothing_stays_nothing(tmp_path):
    random = np.random.default_rng(0)
    vectors = random.normal(size=(50, 5)).astype(np.float16)
    vectors[7] = 0
    points = save(tmp_path, vectors, unit=True)
    np.testing.assert_allclose(points.read(0, 50), normalize(vectors.astype(np.float64)), atol=1e-6)
    rows = np.array([3, 9, 30])
    np.testing.assert_array_equal(points.some(rows).read(1, 3), points.read(0, 50)[[9, 30]])


def test_each_point_goes_to_its_nearest_centre(tmp_path):
    random = np.random.default_rng(1)
    vectors, centres = random.normal(size=(1000, 6)).astype(np.float32), random.normal(size=(9, 6)).astype(np.float32)
    found = clustering(tmp_path).assign(save(tmp_path, vectors), centres)
    distances = pairwise_distances(vectors.astype(np.float64), centres)
    np.testing.assert_array_equal(found.labels, distances.argmin(axis=1))
    np.testing.assert_allclose(found.squares, distances.min(axis=1) ** 2, atol=1e-4)


@pytest.mark.parametrize("seed", range(3))
def test_the_sum_of_squares_is_as_small_as_that_of_scikit_learn(tmp_path, seed):
    vectors, _ = blobs(seed=seed)
    points = save(tmp_path, vectors.astype(np.float32))
    start = kmeans.begin(points, 12, [seed])
    found = clustering(tmp_path).assign(points, clustering(tmp_path).run(points, start))
    theirs = KMeans(12, n_init=1, random_state=seed).fit(vectors)
    assert found.squares.sum() < 1.1 * theirs.inertia_


def test_from_one_start_the_centres_are_those_of_scikit_learn(tmp_path, monkeypatch):
    monkeypatch.setattr(kmeans, "STEPS", 300)
    monkeypatch.setattr(kmeans, "LEAST_GAIN", 0.0)
    vectors, _ = blobs(1500, 8)
    points = save(tmp_path, vectors.astype(np.float32))
    start = kmeans.begin(points, 8, [4])
    ours = clustering(tmp_path).run(points, start)
    theirs = KMeans(8, init=start.centres.astype(np.float64), n_init=1, tol=0).fit(vectors)
    np.testing.assert_allclose(ours, theirs.cluster_centers_, atol=1e-3)


def test_a_centre_without_points_goes_where_a_point_is_farthest_from_its_own(tmp_path):
    vectors = np.array([[0, 0], [0, 1], [10, 0], [10, 1], [30, 0]], np.float32)
    start = kmeans.Progress(0, np.inf, np.array([[5, 0], [500, 0]], np.float32))
    points = save(tmp_path, vectors)
    found = clustering(tmp_path).assign(points, clustering(tmp_path).run(points, start))
    assert len(set(found.labels)) == 2 and found.labels[4] not in found.labels[:4]


def test_neither_processes_nor_an_interruption_change_a_bit(tmp_path):
    vectors, _ = blobs(1700, 30, 33)
    points = save(tmp_path, vectors.astype(np.float16), unit=True)
    kept = []
    whole = clustering(tmp_path).run(points, kmeans.begin(points, 25, [1]), kept.append)
    assert len(kept) > 3
    np.testing.assert_array_equal(clustering(tmp_path, 4).run(points, kmeans.begin(points, 25, [1])), whole)
    for now in kept:
        np.testing.assert_array_equal(clustering(tmp_path).run(points, now), whole)


def test_equal_points_can_be_clustered(tmp_path):
    points = save(tmp_path, np.ones((40, 3), np.float16), unit=True)
    made = hierarchy.build(points, [5, 2], 2, 0, clustering(tmp_path), hierarchy.Kept(tmp_path), tmp_path)
    assert len(np.unique(made.levels[0])) == 1
    ranks = hierarchy.rank_evenly(made.levels, np.ones(40, bool), 0)
    assert sorted(ranks) == list(range(40))


def test_a_hierarchy_finds_groups_of_groups(tmp_path):
    random = np.random.default_rng(0)
    far = random.normal(size=(3, 16)) * 40
    near_ = far[:, None] + random.normal(size=(3, 4, 16)) * 8
    of = np.repeat(np.arange(12), random.integers(20, 200, 12))
    vectors = near_.reshape(12, 16)[of] + random.normal(size=(len(of), 16))
    points = save(tmp_path, vectors.astype(np.float32))
    made = hierarchy.build(points, [12, 3], 3, 0, clustering(tmp_path), hierarchy.Kept(tmp_path), tmp_path)
    assert adjusted_rand_score(of, made.levels[0]) > 0.9
    assert adjusted_rand_score(of // 4, made.levels[1][made.levels[0]]) > 0.95


def test_what_was_kept_is_gone_on_with_and_what_is_damaged_is_not(tmp_path, monkeypatch):
    vectors, _ = blobs(900, 20, 9)
    points = save(tmp_path, vectors.astype(np.float16), unit=True)

    def build(place):
        place.mkdir(exist_ok=True)
        return hierarchy.build(points, [20, 4], 1, 0, clustering(tmp_path), hierarchy.Kept(place), place)

    whole = build(tmp_path / "whole")
    files = sorted((tmp_path / "whole").glob("*.centres"))
    assert [path.stem for path in files] == ["0-0", "0-1", "1-0", "1-1"]
    (tmp_path / "part").mkdir()
    for path in files[:2]:
        (tmp_path / "part" / path.name).write_bytes(path.read_bytes())
    data = bytearray(files[2].read_bytes())
    data[-3] ^= 1
    (tmp_path / "part" / files[2].name).write_bytes(data)
    runs = []
    run = kmeans.Clustering.run
    monkeypatch.setattr(kmeans.Clustering, "run", lambda self, *words: runs.append(1) or run(self, *words))
    again = build(tmp_path / "part")
    assert len(runs) == 2
    for ours, theirs in zip(again.levels, whole.levels, strict=True):
        np.testing.assert_array_equal(ours, theirs)


def take_turns(sequences):
    """One of each sequence, then the next of each, until they run out."""
    return [each[turn] for turn in range(max(map(len, sequences), default=0)) for each in sequences if turn < len(each)]


@pytest.mark.parametrize("seed", range(5))
def test_every_beginning_of_the_ranks_is_an_even_draw_from_the_top(seed):
    random = np.random.default_rng(seed)
    levels = [random.integers(0, 30, 600) ** 2 // 30, random.integers(0, 6, 29), np.array([0, 0, 1, 1, 1, 0])]
    allowed = random.random(600) < 0.8
    ranks = hierarchy.rank_evenly([labels.astype(np.int32) for labels in levels], allowed, seed)
    by_lot = np.random.default_rng(seed).permutation(600)
    sequences = [
        sorted(np.flatnonzero((levels[0] == cluster) & allowed), key=by_lot.__getitem__) for cluster in range(29)
    ]
    for labels in levels[1:]:
        sequences = [
            take_turns([sequences[part] for part in np.flatnonzero(labels == cluster)])
            for cluster in range(labels.max() + 1)
        ]
    wanted = take_turns(sequences)
    assert np.argsort(ranks)[(~allowed).sum() :].tolist() == wanted
    assert (ranks[~allowed] == -1).all()
    top = levels[2][levels[1][levels[0]]]
    for budget in (1, 7, 50, 200, 400):
        taken = np.bincount(top[(ranks >= 0) & (ranks < budget)], minlength=2)
        np.testing.assert_allclose(taken, allot(np.bincount(top[allowed], minlength=2), budget, 0), atol=1)


def cover_naively(units, cosine):
    like, kept = [], []
    cosines = cosine_similarity(units)
    for at in range(len(units)):
        first = next((other for other in kept if cosines[at, other] >= cosine), -1)
        like.append(first)
        if first < 0:
            kept.append(at)
    return like


@pytest.mark.parametrize("cosine", [0.5, 0.9, 0.99])
def test_near_duplicates_are_those_of_a_loop_over_scikit_learns_cosines(monkeypatch, cosine):
    monkeypatch.setattr(near, "BLOCK", 16)
    random = np.random.default_rng(0)
    vectors = random.normal(size=(12, 8))[random.integers(0, 12, 90)] + 0.25 * random.normal(size=(90, 8))
    units = normalize(vectors).astype(np.float32)
    like, cosines = near.find_in_cluster(units, cosine)
    assert like.tolist() == cover_naively(units, cosine)
    rows = np.flatnonzero(like >= 0)
    assert len(rows)
    wanted = cosine_similarity(units)[rows, like[rows]]
    np.testing.assert_allclose(cosines[rows], wanted, atol=1e-5)
    assert np.isnan(cosines[like < 0]).all()


def test_near_duplicates_are_sought_in_each_cluster_by_itself(tmp_path):
    random = np.random.default_rng(3)
    vectors = random.normal(size=(15, 8))[random.integers(0, 15, 200)] + 0.1 * random.normal(size=(200, 8))
    labels = random.integers(0, 4, 200).astype(np.int32)
    points = save(tmp_path, vectors.astype(np.float16), unit=True)
    found = near.find_near(points, labels, 0.95, Workers(2), Report("test"))
    units = points.read(0, 200)
    for cluster in range(4):
        rows = np.flatnonzero(labels == cluster)
        wanted = np.array(cover_naively(units[rows], 0.95))
        np.testing.assert_array_equal(found.like[rows], np.where(wanted < 0, -1, rows[wanted]))
    shares = near.count_near(points, labels, Workers(2), Report("test"))
    assert shares[near.SHOWN.index(0.95)] == (found.like >= 0).mean()


def test_resampling_gives_rare_structures_more_clusters(tmp_path):
    random = np.random.default_rng(0)
    common = random.normal(size=(950, 4))
    rare = random.normal(size=(50, 4)) + 12
    points = save(tmp_path, np.concatenate([common, rare]).astype(np.float32))

    def count_rare(resamplings):
        place = tmp_path / str(resamplings)
        place.mkdir()
        made = hierarchy.build(points, [40], resamplings, 0, clustering(tmp_path), hierarchy.Kept(place), place)
        return len(np.unique(made.levels[0][950:]))

    assert count_rare(5) > 1.5 * count_rare(0)
