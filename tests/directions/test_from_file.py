"""The user's own frame: what is read of a file, and what is refused."""

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from mech_arith.common.errors import UserError
from mech_arith.directions.base import find_method
from mech_arith.directions.methods.from_file import save_frame
from mech_arith.engine.sites import Site
from mech_arith.evidence.correlations import correlation_table
from mech_arith.experiment.config import InterventionConfig, RunConfig, TemplateConfig
from mech_arith.experiment.identity import differences, identify
from tests.directions.fitting import drawn, fitted, started
from tests.directions.test_tracing import planted, traced

EYE = torch.eye(3, 16)


@pytest.fixture
def path(tmp_path):
    return tmp_path / "frame.safetensors"


def method(path, ranks=(), **parts):
    """The method with a file that has these tensors."""
    if parts:
        save_file({name.replace("__", "."): part.clone() for name, part in parts.items()}, path)
    return find_method("from_file", 10, {"path": str(path)}, ranks=ranks)


def test_the_frame_that_pca_finds_gives_the_same_numbers(path):
    model, fit, report, sites, traces = planted()
    site = sites[1]
    save_frame(path, traces[site].subspace)
    asked = {"n_components": 3, "batch_size": 64, "options": {"path": str(path)}}
    again = traced(model, fit, report, [site], method="from_file", **asked)[site]
    for name in ("r", "r_fit", "coordinates", "explained_variance", "explained_variance_fit"):
        torch.testing.assert_close(
            getattr(again, name), getattr(traces[site], name), atol=1e-8, rtol=1e-8
        )
    tables = [
        correlation_table({site: one}, prompts=model.encode(report), n_fit=200)
        for one in (traces[site], again)
    ]
    for column in ("r", "r_low", "r_high"):
        np.testing.assert_allclose(tables[0][column], tables[1][column], atol=1e-8)


def test_coordinates_are_measured_from_its_mean_and_predicted_there(path):
    model, fit, report, sites, traces = planted()
    own = traces[sites[0]]
    elsewhere = own.subspace.mean + 100
    save_file({"frame": own.subspace.directions.contiguous(), "mean": elsewhere}, path)
    asked = {"n_components": 3, "batch_size": 64, "options": {"path": str(path)}}
    found = traced(model, fit, report, sites[:1], method="from_file", **asked)[sites[0]]
    apart = own.subspace.directions @ (own.subspace.mean - elsewhere)
    torch.testing.assert_close(found.coordinates, own.coordinates + apart, atol=1e-8, rtol=1e-8)
    wanted = torch.tensor([1.0, 700.0], dtype=torch.float64)
    torch.testing.assert_close(
        found.predicted_coordinate(0, "b-c", wanted),
        own.predicted_coordinate(0, "b-c", wanted) + apart[0],
        atol=1e-6,
        rtol=1e-8,
    )
    for one, two in zip(found.readings[0].by_value, own.readings[0].by_value, strict=True):
        assert one.r2 == pytest.approx(two.r2, abs=1e-8)


def test_without_a_mean_it_is_the_fit_splits(path):
    x, y = drawn(40, 16)
    save_file({"frame": EYE}, path)
    found = fitted("from_file", x, y, path=str(path))
    torch.testing.assert_close(found.mean, x.mean(0))
    assert float(found.mean_coordinates.abs().max()) == 0
    assert len(found.directions) == 3  # whole, whatever is asked for


def test_layers_may_have_frames_of_their_own(path):
    found = method(path, layer__0__frame=EYE, layer__2__frame=EYE.flip(1))
    _, y = drawn(5, 16)
    for layer, expected in ((0, EYE), (2, EYE.flip(1))):
        fitter = started(found, y, Site(layer, "resid_post", "last"))
        fitter.update(torch.ones(5, 16) * torch.arange(5)[:, None], y)
        assert torch.equal(fitter.fit().directions, expected.double())
    with pytest.raises(
        UserError, match=r"a frame for layer 1 in .*, got those of layers 0, 2; cho"
    ):
        started(found, y, Site(1, "resid_post", "last"))


@pytest.mark.parametrize(
    ("parts", "message"),
    [
        ({"directions": EYE}, "expected the keys 'frame' and 'mean', or .* got directions; rename"),
        ({"frame": EYE, "bias": EYE[0]}, "got bias; rename"),
        ({"mean": EYE[0]}, "got mean; rename"),
        ({"frame": EYE, "layer__1__frame": EYE}, "expected the keys .* got frame, layer.1.frame"),
        ({"frame": EYE[0]}, r"expected rows of numbers \[k, d\] as 'frame' in .*, got \[16\] of f"),
        ({"frame": EYE[:0]}, r"got \[0, 16\] of float32; save one direction a row"),
        ({"frame": EYE.long()}, r"got \[3, 16\] of int64"),
        ({"frame": EYE, "mean": EYE[0, :9]}, r"expected 16 numbers as 'mean' in .*, got \[9\]"),
        ({"frame": EYE * float("nan")}, "finite numbers as 'frame' in .*, got NaN or infinity"),
        ({"frame": EYE, "mean": EYE[0] / 0}, "finite numbers as 'mean' in"),
        ({"frame": 2 * EYE}, "orthonormal rows as 'frame' in .*, got F F' as far as 3 from the id"),
        ({"frame": EYE + 0.01}, "as far as 0.022 from the identity"),
    ],
)
def test_files_that_are_refused(path, parts, message):
    with pytest.raises(UserError, match=message) as said:
        method(path, **parts)
    assert "\n" not in str(said.value)


def test_files_that_are_none(path, tmp_path):
    with pytest.raises(UserError, match=r"file with tracing.method=from_file, got none; set"):
        find_method("from_file", 10)
    with pytest.raises(UserError, match=r"a safetensors file at .*, found none; set tracing.opt"):
        method(path)
    with pytest.raises(UserError, match=r"a safetensors file at .*, found none"):
        method(tmp_path)
    path.write_text("not a frame")
    with pytest.raises(UserError, match=r"got one that cannot be read .*; save it with safe"):
        method(path)
    path.write_bytes(b"")
    with pytest.raises(UserError, match=r"got one that cannot be read"):
        method(path)


def test_sites_and_ranks_that_do_not_fit(path):
    _, fit, *_ = planted()
    _, y = drawn(5, 9)
    narrow = method(path, frame=torch.eye(2, 9))
    with pytest.raises(
        UserError, match=r"of width 16 for resid_post at position last \(1 tokens\)"
    ):
        started(narrow, y)
    with pytest.raises(UserError, match=r"of width 64 for .* position all \(4 tokens\), got 9 in"):
        started(narrow, y, Site(0, "resid_post", "all"))
    method(path, ranks=(1, 2)).check(fit)
    with pytest.raises(UserError, match=r"tracing.rank <= 2, the rows of the frame in .*, got 3"):
        method(path, ranks=(1, 3)).check(fit)


def test_what_is_written_is_a_frame(path):
    subspace = fitted("ridge", *drawn(40, 16), rank=2)
    with pytest.raises(UserError, match=r"expected orthonormal rows as 'frame'"):
        save_frame(path, subspace)
    save_frame(path, subspace, subspace.frame(1, 2))
    found = fitted("from_file", *drawn(40, 16), path=str(path))
    assert torch.equal(found.directions, subspace.directions[2:4])


def config(path):
    found = RunConfig(
        template=TemplateConfig("nested", "a-(b-c)"),
        intervention=InterventionConfig(strengths=[0.0]),
    )
    found.tracing.method, found.tracing.options = "from_file", {"path": str(path)}
    return found


def test_what_the_file_holds_is_part_of_the_identity_and_not_where_it_lies(path, tmp_path):
    elsewhere = tmp_path / "other.safetensors"
    keys, identities = [], []
    for file, frame in ((path, EYE), (elsewhere, EYE), (elsewhere, EYE.flip(0))):
        keys.append(method(file, frame=frame).key)
        identities.append(identify(config(file)))
    assert keys[0] == keys[1] != keys[2]
    assert identities[0] == identities[1]
    assert identities[2].digest != identities[1].digest
    assert differences(identities[1].determines, identities[2].determines) == "files"
    elsewhere.unlink()
    with pytest.raises(UserError, match=r"found none; set tracing.options.path"):
        identify(config(elsewhere))
