"""Run directories as a sweep leaves them, without running anything: for the report's benchmark.

Tables have the columns and about the sizes of real ones; the numbers are made up, but move as real
ones do (|R| grows towards a layer of its own for every value, drops grow with the strength).
"""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from mech_arith.evidence.results import save_run
from mech_arith.evidence.summary import verdict_summary
from mech_arith.evidence.verdicts import judged

TOKENS = (
    "a·100",
    "a·10",
    "a·1",
    "-",
    "(",
    "b·100",
    "b·10",
    "b·1",
    "-",
    "c·100",
    "c·10",
    "c·1",
    ")",
    "=",
)
STRENGTHS = {
    "scale": ("factor r", 1.0, (-2.0, -1.0, -0.5, 0.0, 0.5, 1.0, 1.5, 2.0, 3.0)),
    "shift": ("sd", 0.0, (-3.0, -2.0, -1.0, -0.5, 0.0, 0.5, 1.0, 2.0, 3.0)),
    "interchange": ("share of the way", 0.0, (0.5, 1.0)),
}
"""Per edit its unit, the strength of no change, and strengths."""

MODELS = ("arith_decoder", "arith_encoder", "smollm2_135m", "gpt2", "pythia_410m")
TEMPLATES = (
    ("nested_subtraction", "a-(b-c)", ("a", "b", "c", "b-c", "a-(b-c)")),
    ("sum_then_difference", "a+b-c", ("a", "b", "c", "a+b", "a+b-c")),
    ("left_subtraction", "(a-b)-c", ("a", "b", "c", "a-b", "(a-b)-c")),
)
EDITS = ("scale", "shift")

R = ["r", "r_low", "r_high", "p_holm"]
"""What a run says of each of its correlations."""

PLACE = ["layer", "point", "position", "head", "component", "rank"]
"""What names a direction."""

CONFIG = Path(__file__).parents[2] / "conf" / "config.yaml"


@dataclass(frozen=True, kw_only=True)
class SyntheticCell:
    """What a made-up cell is of."""

    model: str = "arith_decoder"
    template: str = "nested_subtraction"
    positions: str = "all"
    heads: tuple[int, ...] = ()
    """Heads that are sites of their own; none for whole points."""
    expression: str = "a-(b-c)"
    values: tuple[str, ...] = ("a", "b", "c", "b-c", "a-(b-c)")
    edit: str = "scale"
    n_layers: int = 4
    n_components: int = 10
    seed: int = 0
    fields: dict[str, Any] = field(default_factory=dict)
    """What the cell's record says beside, or instead."""
    warnings: tuple[str, ...] = ()

    @property
    def point(self) -> str:
        return "z" if self.heads else "resid_post"


def save_cell(directory: Path, cell: SyntheticCell) -> None:
    """Save a whole run."""
    random = np.random.default_rng(cell.seed)
    fields = {
        "model": cell.model,
        "template": cell.template,
        "expression": cell.expression,
        "layers": "all",
        "tracing": "pca",
        "point": cell.point,
        "positions": cell.positions,
        "prompt": None,
        "edit": cell.edit,
        "design": "uniform",
        "seed": cell.seed,
        **cell.fields,
    }
    correlations = _correlations(cell, random)
    effects = _effects(cell, correlations, random)
    evidence = _evidence(cell, correlations, random)
    made_by = {name: fields[name] for name in ("model", "template", "expression", "prompt", "seed")}
    summary = {
        **_headlines(cell, correlations, effects),
        **_sure_headlines(evidence),
        "cell": fields,
        "command": f"python -m mech_arith model={cell.model} problems.seed={cell.seed}",
        "identity": f"{cell.seed:064x}",
        "attempts": 1,
        "warnings": list(cell.warnings),
        "provenance": {"git_commit": "0" * 40, "seed": cell.seed, "versions": {"torch": "2.13.0"}},
    }
    tables = {"correlations": correlations, "effects": effects, "evidence": evidence}
    if cell.edit == "interchange":
        tables["specificity"] = _specificity(cell, evidence, random)
    tables = {name: table.assign(**made_by) for name, table in tables.items()}
    config = CONFIG.read_text(encoding="utf-8")
    save_run(directory, tables=tables, summary=summary, config_yaml=config)


def save_sweep(directory: Path, cells: int) -> None:
    """Save made-up cells of several models, templates, edits and seeds."""
    for index in range(cells):
        template, expression, values = TEMPLATES[index // len(MODELS) % len(TEMPLATES)]
        cell = SyntheticCell(
            model=MODELS[index % len(MODELS)],
            template=template,
            expression=expression,
            values=values,
            edit=EDITS[index // 15 % len(EDITS)],
            seed=index,
        )
        save_cell(directory / str(index), cell)


def _correlations(cell: SyntheticCell, random: np.random.Generator) -> pd.DataFrame:
    """A row per layer, position (those asked for, and each), head, component and value."""
    positions = [(str(index), index, token) for index, token in enumerate(TOKENS)]
    if cell.positions not in ("each", *(name for name, _, _ in positions)):
        positions.insert(0, (cell.positions, -1, ""))
    heads = [str(head) for head in cell.heads] or [""]
    places = [(*position, head) for position in positions for head in heads]
    counts = (cell.n_layers, len(places), cell.n_components, len(cell.values))
    layer, place, component, value = (axis.ravel() for axis in np.indices(counts))
    home = np.linspace(0, cell.n_layers - 1, len(cell.values))[value]
    size = np.exp(-np.abs(layer - home) / 2 - 0.9 * np.abs(component - value) - 0.05 * place)
    r = np.clip(size * random.choice([-1, 1], len(size)) + random.normal(0, 0.05, len(size)), -1, 1)
    names, indices, tokens, of_heads = (
        np.array(column)[place] for column in zip(*places, strict=True)
    )
    return pd.DataFrame(
        {
            "layer": layer,
            "point": cell.point,
            "position": names,
            "head": of_heads,
            "position_index": indices,
            "token": tokens,
            "component": component,
            "rank": 1,
            "value": np.array(cell.values)[value],
            "r": r,
            "abs_r": np.abs(r),
            "r_low": np.clip(r - 0.04, -1, 1),
            "r_high": np.clip(r + 0.04, -1, 1),
            "p_holm": np.where(np.abs(r) > 0.3, 0.001, 0.6),
            "r_passed": r,
            "r_fit": np.clip(r + random.normal(0, 0.02, len(r)), -1, 1),
            "explained_variance": 0.4 * 0.6**component,
            "explained_variance_fit": 0.4 * 0.6**component,
            "n_fit": 500,
            "n_report": 500,
        }
    )


def _effects(
    cell: SyntheticCell, correlations: pd.DataFrame, random: np.random.Generator
) -> pd.DataFrame:
    """A row per layer, chosen direction, arm and strength."""
    unit, unchanged, strengths = STRENGTHS[cell.edit]
    asked = _asked(cell, correlations)
    best = asked.loc[asked["r_fit"].abs().groupby([asked["layer"], asked["value"]]).idxmax()]
    chosen = best.groupby(["layer", "position", "head", "component"])["value"].agg(tuple)
    rows = []
    for (layer, position, head, component), values in chosen.items():  # pyright: ignore[reportGeneralTypeIssues]
        for arm, scale in (("target", 0.3), ("control", 0.05)):
            for strength in strengths:
                lost = scale * abs(strength - unchanged) * random.uniform(0.7, 1.3)
                drop = round(min(0.98, lost) * 200) / 200
                rows.append(
                    {
                        "layer": layer,
                        "point": cell.point,
                        "position": position,
                        "head": head,
                        "direction": f"{'component' if arm == 'target' else arm} {component}",
                        "component": component,
                        "rank": 1,
                        "arm": arm,
                        "chosen_for": values,
                        "target_value": "",
                        "edit": cell.edit,
                        "strength": strength,
                        "strength_unit": unit,
                        "n": 200,
                        "baseline_accuracy": 0.98,
                        "edited_accuracy": 0.98 - drop,
                        "mean_shift": float(random.normal(0, 30)),
                        "accuracy_drop": drop,
                        "accuracy_drop_low": drop - 0.06,
                        "accuracy_drop_high": drop + 0.06,
                        "accuracy_drop_passed": drop / 0.98,
                        "status": "ok",
                        "reason": "",
                    }
                )
    return pd.DataFrame(rows)


def _asked(cell: SyntheticCell, correlations: pd.DataFrame) -> pd.DataFrame:
    """The rows of the positions that the cell asks for."""
    if cell.positions == "each":
        return correlations
    return correlations.loc[correlations["position"] == cell.positions]


def _evidence(
    cell: SyntheticCell, correlations: pd.DataFrame, random: np.random.Generator
) -> pd.DataFrame:
    """A row per layer, position and value, with intervals; iia where it is asked for."""
    asked = _asked(cell, correlations)
    keys = [asked[name] for name in ("layer", "position", "head", "value")]
    best = asked.loc[asked["r_fit"].abs().groupby(keys).idxmax()].reset_index(drop=True)
    share = best["r"].abs() * random.uniform(0.5, 0.9, len(best))
    asks = cell.edit == "interchange"
    drops = {"target_drop": share + 0.05, "control_drop": 0.05, "excess_drop": share}
    ends = {"excess_low": share - 0.08, "excess_high": share + 0.08}
    answered = {
        "iia": share,
        "iia_low": share - 0.05,
        "iia_high": share + 0.05,
        "iia_p_holm": np.where(share > 0.2, 0.001, 0.4),
        "floor": 0.03,
        "ceiling": 0.98,
        "slope": share,
        "slope_low": share - 0.1,
        "slope_high": share + 0.1,
        "slope_random": 0.01,
    }
    found = best[[*PLACE, "value", "r_fit", *R]].assign(
        partial_r=best["r"] / 3,
        partial_r_undefined="",
        least_partial_r=best["r"] * 0.6,
        least_partial_given=[cell.values[value == cell.values[0]] for value in best["value"]],
        shapley=best["r"] ** 2 / 2,
        edit=cell.edit,
        n=200,
        **drops,
        **ends,
        excess_p_max=np.where(share > 0.2, 0.001, 0.5),
        **(answered if asks else dict.fromkeys(answered)),
    )
    counts = pd.DataFrame([judged(row) for row in found.to_dict(orient="records")])
    return pd.concat([found, counts], axis=1)


def _specificity(
    cell: SyntheticCell, evidence: pd.DataFrame, random: np.random.Generator
) -> pd.DataFrame:
    """A row per direction of the evidence and value changed."""
    places = evidence[[*PLACE, "value"]]
    rows = places.merge(pd.DataFrame({"changed": cell.values}), how="cross")
    rows = rows.rename(columns={"value": "direction_of"})
    own = rows["direction_of"] == rows["changed"]
    rows["direction_of"] = rows["direction_of"].map(lambda value: (value,))
    slope = own * 0.8 + random.normal(0, 0.1, len(rows))
    ends = {"slope_low": slope - 0.1, "slope_high": slope + 0.1}
    return rows.assign(slope=slope, **ends, iia=own * 0.6, n=200)


def _sure_headlines(evidence: pd.DataFrame) -> dict[str, Any]:
    """What a run's summary says of its evidence."""
    best = evidence.loc[evidence["r_fit"].abs().groupby(evidence["value"]).idxmax()]
    best = best.set_index("value")
    place = ["layer", "position", "head", "component", "rank"]
    ends = ["excess_low", "excess_high", "excess_p_max", "target_drop", "control_drop"]
    answered = [
        "iia",
        "iia_low",
        "iia_high",
        "iia_p_holm",
        "floor",
        "ceiling",
    ]
    known = best.dropna(subset=["iia"])
    return {
        "verdicts": verdict_summary(evidence),
        "excess_drop": best[["excess_drop", *ends, *place]].to_dict(orient="index"),
        "counterfactual": known[[*answered, *place]].to_dict(orient="index"),
        "inference": {"level": 0.95, "n_tests": 20, "n_significant_holm": 10},
    }


def _headlines(
    cell: SyntheticCell, correlations: pd.DataFrame, effects: pd.DataFrame
) -> dict[str, Any]:
    """What a run's summary says of its tables."""
    asked = _asked(cell, correlations)
    best = asked.loc[asked["r_fit"].abs().groupby(asked["value"]).idxmax()].set_index("value")
    fields = ["abs_r", *R, "r_passed", "layer", "component", "rank", "position", "head"]
    targets = effects.loc[effects["arm"] == "target"].sort_values("accuracy_drop", kind="stable")
    places = ["layer", "position", "head", "component", "rank", "strength"]
    controls = effects.loc[effects["arm"] == "control"].set_index(places)["accuracy_drop"]
    drops = {}
    for value in best.index:
        of_value = targets.loc[[value in names for names in targets["chosen_for"]]]
        worst = of_value.iloc[-1]
        drops[value] = {
            **worst[["accuracy_drop", "accuracy_drop_passed", "baseline_accuracy", "n"]].to_dict(),
            **worst[places].to_dict(),
            "control_drop": controls[tuple(worst[places])],
        }
    return {
        "baseline_accuracy": 0.98,
        "majority_floor": 0.01,
        "above_floor_p": 0.0,
        "n_fit": 500,
        "n_report": 500,
        "n_passed": 490,
        "n_edited": 200,
        "n_searched": 40,
        "n_edits_searched": len(effects) // 2,
        "best": best[fields].to_dict(orient="index"),
        "largest_drop": drops,
        "engine": "resumed",
    }
