"""The tokens of the answer as a figure and on the page."""

from itertools import product

import pandas as pd
import pytest

from mech_arith.reports.figures import answer_token_maps
from mech_arith.reports.page.evidence import token_maps
from mech_arith.reports.wandb.metrics import headline

VALUES, TOKENS = ("b", "b-c"), ("sign", "10^0", "10^1")


def evidence(n_layers: int = 2) -> pd.DataFrame:
    """A row per layer and value, at one site each."""
    places = product(range(n_layers), VALUES)
    rows = [{"layer": layer, "value": value} for layer, value in places]
    site = {"point": "resid_post", "position": "answer", "head": "", "component": 1, "rank": 1}
    return pd.DataFrame(rows).assign(**site, r_fit=0.9)


def tokens(n_layers: int = 2) -> pd.DataFrame:
    """The sign of b follows in every layer, and nothing else; a control and half the way beside."""
    table = evidence(n_layers).drop(columns="r_fit")
    named = pd.DataFrame({"token": range(3), "token_name": TOKENS})
    rows = table.merge(named, how="cross")
    follows = (rows["value"] == "b") & (rows["token"] == 0)
    rows = rows.assign(
        iia=follows * 0.9, iia_low=follows * 0.8, iia_high=follows * 0.95, floor=0.1, n=50
    ).assign(iia_changed=follows * 0.7, ceiling=1.0, ceiling_changed=1.0, strength=1.0)
    target = rows.assign(arm="target")
    half = target.assign(strength=0.5, iia=0.3)
    return pd.concat([half, rows.assign(arm="control", iia=0.2), target], ignore_index=True)


def test_a_panel_per_layer_with_values_and_tokens() -> None:
    sheet = answer_token_maps(tokens(), evidence(), title="T", level=0.9)
    maps = [panel for panel in sheet.panels if panel.cells is not None]
    assert [panel.cells.tolist() for panel in maps] == [[[0.9, 0, 0], [0, 0, 0]]] * 2
    texts = [label.text for label in maps[0].labels]
    assert ".90" in texts
    assert texts.count("(.00)") == 5
    assert ".80 to .95\nfl. .10 c. 1.00" in texts
    assert any("90% interval" in label.text for label in sheet.lettering.labels)
    assert len(sheet.rows) == 12


def test_many_layers_have_no_numbers_in_their_cells() -> None:
    sheet = answer_token_maps(tokens(30), evidence(30))
    maps = [panel for panel in sheet.panels if panel.cells is not None]
    assert len(maps) == 30
    assert not any(label.text == ".90" for panel in maps for label in panel.labels)


def test_tokens_of_other_components_are_not_drawn() -> None:
    with pytest.raises(ValueError, match="tokens of the components in the evidence, got none"):
        answer_token_maps(tokens().assign(component=0), evidence())
    tables = {"answer_tokens": tokens(), "evidence": evidence().assign(component=0)}
    assert token_maps(tables["answer_tokens"], tables["evidence"]) == []


def test_the_page_has_a_map_per_layer() -> None:
    first, second = token_maps(tokens(), evidence())
    assert (first["layer"], second["layer"]) == (0, 1)
    assert first["values"] == ["b", "b-c"]
    assert first["tokens"] == list(TOKENS)
    assert first["iia"] == [[0.9, 0, 0], [0, 0, 0]]
    assert first["iia_low"][0][0] == 0.8
    assert first["component"] == [1, 1]
    assert token_maps(pd.DataFrame(), evidence()) == []


def test_wandb_has_the_numbers_of_each_token() -> None:
    found = headline({"answer_tokens": {"b-c": {"10^0": {"iia": 0.5, "floor": 0.1}, "layer": 2}}})
    assert found == {
        "answer_tokens/b_minus_c/10_to_0/iia": 0.5,
        "answer_tokens/b_minus_c/10_to_0/floor": 0.1,
        "answer_tokens/b_minus_c/layer": 2,
    }
