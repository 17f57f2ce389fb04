"""Weighted k-means: centers are means, none is wasted, and few points are all kept."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from accelerate import Accelerator
from hypothesis import given, settings
from hypothesis import strategies as st

from quantizers.small_quantizers import clustered_vectors
from recbase_hf.quantizers.kmeans import assign, kmeans

POINTS = torch.from_numpy(clustered_vectors(500))


def cluster(points, clusters=8, weights=None, **options):
    weights = torch.ones(len(points), dtype=torch.float64) if weights is None else weights
    return kmeans(points, weights, clusters, accelerator=Accelerator(cpu=True), **options)


def test_centers_are_where_the_points_are():
    losses = [float(assign(POINTS, cluster(POINTS, iterations=iterations))[1].sum()) for iterations in (0, 1, 10)]
    assert losses[0] > 1.1 * losses[1] > 1.1 * losses[2]
    codes, _ = assign(POINTS, cluster(POINTS))
    assert len(codes.unique()) == 8


def test_at_rest_each_center_is_the_weighted_mean_of_its_points():
    weights = torch.rand(len(POINTS), dtype=torch.float64, generator=torch.Generator().manual_seed(0)) + 0.1
    centers = cluster(POINTS, weights=weights, iterations=100)
    codes, _ = assign(POINTS, centers)
    for code, center in enumerate(centers):
        mine = codes == code
        mean = (POINTS[mine].double() * weights[mine, None]).sum(dim=0) / weights[mine].sum()
        torch.testing.assert_close(center, mean.float())


def test_items_without_weight_attract_no_center():
    points = torch.cat([POINTS, POINTS + 100.0])
    weights = torch.cat([torch.ones(500), torch.full((500,), 1e-9)]).double()
    assert cluster(points, clusters=4, weights=weights, iterations=0).abs().max() < 2.0


def test_the_seed_decides_the_start():
    assert torch.equal(cluster(POINTS, seed=1), cluster(POINTS, seed=1))
    assert not torch.equal(cluster(POINTS, seed=1), cluster(POINTS, seed=2))


def test_centers_that_start_on_copies_of_one_point_move_to_others():
    points = torch.cat([POINTS[:1].expand(400, -1), POINTS[1:60]])
    at_start, _ = assign(points, cluster(points, clusters=16, iterations=0))
    at_end, _ = assign(points, cluster(points, clusters=16))
    assert len(at_start.unique()) < 10
    assert len(at_end.unique()) == 16


@given(different=st.integers(1, 12), copies=st.integers(1, 5), clusters=st.integers(1, 16), seed=st.integers(0, 50))
@settings(max_examples=60, deadline=None)
def test_no_more_points_than_clusters_are_all_centers_and_every_other_center_is_out_of_the_way(
    different, copies, clusters, seed
):
    distinct = torch.from_numpy(clustered_vectors(different, seed))
    points = distinct.repeat(copies, 1)
    centers = cluster(points, clusters=clusters, seed=seed)
    assert centers.shape == (clusters, points.shape[1])
    assert centers.dtype == torch.float32
    codes, distances = assign(points, centers)
    if different <= clusters:
        assert len(codes.unique()) == different
        assert distances.max() == 0
    else:
        assert len(codes.unique()) == clusters


@pytest.mark.parametrize("points", [torch.zeros(5, 3), torch.ones(40, 3)])
def test_points_that_are_all_alike_share_one_center(points):
    codes, distances = assign(points, cluster(points))
    assert np.unique(codes.numpy()).size == 1
    assert distances.max() == 0
