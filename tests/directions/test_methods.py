"""How direction methods are found by name, and how their options are read."""

from dataclasses import dataclass

import pytest
import torch
from jaxtyping import Float
from torch import Tensor

from mech_arith.common.errors import UserError
from mech_arith.common.paths import conf_dir
from mech_arith.common.store import Store
from mech_arith.directions.base import METHODS, DirectionMethod, FitTask, find_method
from mech_arith.directions.methods.pca import PCAFitter
from mech_arith.directions.tracing import fit_directions
from mech_arith.engine.batching import Batching
from mech_arith.engine.session import Session
from tests.directions.test_tracing import planted, traced


@METHODS.register("pca_of_a_power")
@dataclass
class PowerFitter(PCAFitter):
    """Principal components of a power of the activations: a method with options, for the tests."""

    power: float = 1.0
    periods: tuple[float, ...] = (2.0, 10.0)
    kind: str = "plain"
    seeds: int | None = None
    whiten: bool = False

    def __post_init__(self) -> None:
        if self.power <= 0:
            raise UserError(f"expected tracing.options.power above 0, got {self.power}")

    def start(self, task: FitTask) -> None:
        self.task = task
        started.append(task)

    def update(
        self, activations: Float[Tensor, "n d"], values: Float[Tensor, "n v"] | None = None
    ) -> None:
        assert values is not None
        seen.append(values)
        super().update(activations.abs() ** self.power, values)


started: list[FitTask] = []
seen: list[Tensor] = []


def power(**options):
    return find_method("pca_of_a_power", 2, options)


def test_options_are_the_fields_of_the_class_with_their_defaults():
    assert power().options == {
        "power": 1.0,
        "periods": (2.0, 10.0),
        "kind": "plain",
        "seeds": None,
        "whiten": False,
    }
    given = power(power=3, periods=[5, 10.5], kind="x", seeds=4, whiten=True)
    assert given.options == {
        "power": 3.0,
        "periods": (5.0, 10.5),
        "kind": "x",
        "seeds": 4,
        "whiten": True,
    }
    assert given.key["options"]["periods"] == [5.0, 10.5]
    assert power(seeds=None).key == power().key != given.key


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"ridge": 1}, r"unknown option of pca_of_a_power 'ridge'; expected one of: power, per"),
        ({"n_components": 1}, "unknown option of pca_of_a_power 'n_components'"),
        ({"_moments": 1}, "unknown option of pca_of_a_power '_moments'"),
        ({"power": "2"}, r"tracing.options.power of type float, got '2'"),
        ({"power": True}, "of type float, got True"),
        ({"periods": 10}, r"tracing.options.periods of type tuple\[float, ...\], got 10"),
        ({"periods": [1, "x"]}, r"tracing.options.periods of type float, got 'x'"),
        ({"seeds": 1.5}, r"of type int \| None, got 1.5"),
        ({"whiten": 1}, "of type bool, got 1"),
        ({"power": -1}, "options.power above 0, got -1.0"),
    ],
)
def test_options_that_are_refused(options, message):
    with pytest.raises(UserError, match=message) as said:
        power(**options)
    assert "\n" not in str(said.value)


def test_methods_without_options_and_unknown_methods():
    with pytest.raises(UserError, match=r"expected no tracing.options with pca, got ridge; leave"):
        find_method("pca", 2, {"ridge": 1})
    with pytest.raises(
        UserError, match=r"unknown tracing method 'umap'.*expected one of: .*pca, pls"
    ):
        find_method("umap", 2)


def test_a_method_sees_the_values_of_its_rows_and_may_see_the_model():
    model, fit, _, sites, _ = planted()
    started.clear()
    seen.clear()
    session = Session(model, Batching(30))
    fit_directions(session, fit, model.encode(fit), sites[:1], power())
    (task,) = started
    assert (task.session, task.problems, task.site) == (session, fit, sites[0])
    given = torch.cat(seen)[:, list(fit.values).index("b-c")]
    assert sorted(given.tolist()) == sorted(fit.values["b-c"].tolist())
    assert len(seen) > 1


def test_the_store_keeps_methods_and_their_options_apart(tmp_path):
    model, fit, report, sites, _ = planted(n=60)
    asked = {"n_components": 2, "batch_size": 30}
    store = Store(tmp_path)
    found = {
        name: traced(model, fit, report, sites[:1], store=store, method=name, **asked)[sites[0]]
        for name in ("pca", "pls", "pca_of_a_power")
    }
    assert store.hits == 0
    directions = [trace.subspace.directions for trace in found.values()]
    for one, two in ((0, 1), (0, 2), (1, 2)):
        assert not torch.allclose(directions[one], directions[two])
    again = traced(model, fit, report, sites[:1], store=store, method="pls", **asked)[sites[0]]
    assert torch.equal(again.subspace.directions, directions[1])
    assert torch.equal(again.subspace.covariance, found["pls"].subspace.covariance)
    assert store.hits == 2


@pytest.mark.parametrize("name", [n for n in METHODS.names() if n != "pca_of_a_power"])
def test_every_method_has_a_yaml_and_the_source_of_its_own(name):
    assert (conf_dir() / "tracing" / f"{name}.yaml").is_file()
    module, *_ = DirectionMethod(name, 1).code
    assert module.__name__ == f"mech_arith.directions.methods.{name}"
