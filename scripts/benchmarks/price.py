"""How near the dry run's estimates are to real cells: seconds of CPU, side by side.

    python scripts/benchmarks/price.py                 # all cells, a quarter of an hour
    python scripts/benchmarks/price.py smollm2_heads   # some of them

Each cell is run in a process of its own with one thread, without W&B and with a store of its own;
and all are priced together, as a dry run of a sweep does. Both count CPU time, which other
processes on the machine change less than the clock's. The constants of the estimate were fitted on
the cells that are not held out.
"""

import argparse
import json
import tempfile
from collections.abc import Sequence
from pathlib import Path

import torch
from overhead import watched

from mech_arith import compose
from mech_arith.experiment.pricing.dry_run import price_of_sweep
from mech_arith.experiment.pricing.price import START_S, Price

FEW = "intervention.controls={random:5,span:5,valueless:5,other:true,shuffled:true}"
DRAWN = "intervention.controls={random:20,span:0,valueless:0,other:false,shuffled:false}"
SMOLLM2 = (
    "model=smollm2_135m",
    "prompt=chat",
    "prompt.shots=1",
    "template=sum_of_two",
    "problems.operands={min:0,max:9}",
    "problems.n=99",
)
DIGITS = ("template=sum_of_two", "hypothesis=digits", "intervention=interchange")

CELLS: dict[str, tuple[str, ...]] = {
    "decoder_default": ("layers=[1,2]", "problems.n=400", FEW),
    "decoder_trace": ("intervention=none",),
    "decoder_each": ("tracing=pca_each", "layers=[2]", "problems.n=400", FEW),
    "decoder_interchange": ("intervention=interchange", "layers=[2,3]", "problems.n=400", DRAWN),
    "decoder_ranks": (
        *DIGITS,
        "tracing=mean_difference",
        "tracing.rank=[1,2,4]",
        "layers=[1,2]",
        "problems.n=600",
        "intervention.sources=1",
        DRAWN,
    ),
    "decoder_answer": (
        *DIGITS,
        "tracing=pls",
        "tracing.positions=answer.each",
        "tracing.position_map=false",
        "layers=[1]",
        "problems.n=600",
        "intervention.sources=1",
        DRAWN,
    ),
    "decoder_das": (
        "tracing=das",
        "tracing.options.values=[b-c]",
        "tracing.options.steps=60",
        "tracing.positions=last",
        "layers=[2]",
        "intervention=interchange",
        "intervention.values=[b-c]",
        "problems.n=400",
        DRAWN,
    ),
    "decoder_locality": ("layers=[2]", "locality.enabled=true", "locality.n_problems=100", FEW),
    "encoder_default": ("model=arith_encoder", "layers=[1,3]", "problems.n=400", FEW),
    "encoder_rivals": (
        "model=arith_encoder",
        "intervention=interchange",
        "hypothesis.rivals=[left_to_right,at_once]",
        "tracing.rank=[1,4]",
        "layers=[3,4]",
        "problems.n=200",
        "intervention.n_problems=40",
        "intervention.sources=1",
        DRAWN,
    ),
    "smollm2_trace": (*SMOLLM2, "tracing=ridge", "tracing.positions=last", "intervention=none"),
    "smollm2_scale": (*SMOLLM2, "tracing=pca_last", "layers=[27,28]", FEW),
    "smollm2_interchange": (
        *SMOLLM2,
        "tracing=pca_last",
        "intervention=interchange",
        "intervention.sources=1",
        "layers=[22,28]",
        "intervention.n_problems=30",
        DRAWN,
    ),
    "smollm2_heads": (
        *SMOLLM2,
        "tracing=pca_last",
        "tracing.point=z",
        "tracing.heads=each",
        "intervention=ablate",
        "layers=[26]",
        "intervention.n_problems=16",
        "intervention.controls={random:5,span:0,valueless:0,other:false,shuffled:false}",
    ),
    "smollm2_screen": (
        *SMOLLM2,
        "screen=attribution",
        "screen.keep=2",
        "screen.sample=10",
        "tracing.positions=each",
        "intervention=ablate",
        "layers=[18,24,28]",
        "intervention.n_problems=16",
        "intervention.controls={random:5,span:0,valueless:0,other:false,shuffled:false}",
    ),
    "smollm2_all": (
        *SMOLLM2,
        "layers=[27]",
        "intervention=ablate",
        "intervention.n_problems=20",
        FEW,
    ),
    "encoder_heads": (
        "model=arith_encoder",
        "tracing.point=z",
        "tracing.heads=each",
        "layers=[2]",
        "problems.n=200",
        "intervention.n_problems=8",
        "intervention.controls={random:5,span:0,valueless:0,other:false,shuffled:false}",
    ),
    "decoder_shift": (
        "template=sum_then_difference",
        "intervention=shift",
        "layers=[1,3]",
        "problems.n=300",
        DRAWN,
    ),
    "smollm2_integrated": (
        *SMOLLM2,
        "screen=integrated",
        "screen.steps=2",
        "screen.keep=1",
        "screen.sample=10",
        "layers=[20,26]",
        "intervention=scale",
        "intervention.n_problems=16",
        "intervention.controls={random:5,span:0,valueless:0,other:false,shuffled:false}",
    ),
    "smollm2_bfloat16": (
        *SMOLLM2,
        "dtype=bfloat16",
        "tracing=pca_last",
        "layers=[25]",
        "intervention=ablate",
        "intervention.n_problems=20",
        "intervention.controls={random:5,span:0,valueless:0,other:false,shuffled:false}",
    ),
}
"""Name -> overrides. Small cells of many kinds."""

HELD_OUT = {"encoder_heads", "decoder_shift", "smollm2_integrated", "smollm2_bfloat16"}
"""Cells by which no constant was chosen."""

ALWAYS = ("wandb=disabled", "threads=1")


def estimated(names: Sequence[str]) -> dict[str, Price]:
    """What a dry run says of cells, with an empty store."""
    with tempfile.TemporaryDirectory() as scratch:
        cells = [
            (name, compose(*CELLS[name], *ALWAYS, f"store.path={scratch}").settings)
            for name in names
        ]
        return {price.name: price for price in price_of_sweep(cells, rate=None).prices}


def real(overrides: Sequence[str]) -> dict[str, float]:
    """Seconds of CPU by part of a real run."""
    with tempfile.TemporaryDirectory() as scratch:
        spent, _ = watched(*overrides, f"hydra.run.dir={scratch}/run")
    return dict(spent)


PARTS = {"engine": ("engine", "guard"), "start": ("imports",)}
"""Of what is measured, what an estimate calls the model's time and a start; the rest is beside."""

HEAD = ("cell", "estimate", "CPU", "ratio", "in the model", "beside it", "start")


def row(price: Price, found: dict[str, float]) -> tuple[str, ...]:
    """Estimate and real seconds of one cell: of all, then by part as 'estimate / real'."""
    found, cpu = dict(found), sum(found.values())
    parts = {part: sum(found.pop(key, 0.0) for key in keys) for part, keys in PARTS.items()}
    estimate = price.seconds + START_S
    return (
        f"{price.name} (held out)" if price.name in HELD_OUT else price.name,
        f"{estimate:.1f}",
        f"{cpu:.1f}",
        f"{estimate / cpu:.2f}",
        f"{price.engine_s:.1f} / {parts['engine']:.1f}",
        f"{price.other_s:.1f} / {sum(found.values()):.1f}",
        f"{START_S:.1f} / {parts['start']:.1f}",
    )


def main() -> None:
    """Price the cells that are asked for, run them, and print both as a table in Markdown."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("cells", nargs="*", metavar="CELL", help=", ".join(CELLS))
    parser.add_argument("--kept", type=Path, help="a JSON file of real runs: read, and added to")
    asked = parser.parse_args()
    names = asked.cells or list(CELLS)
    known = {}
    if asked.kept is not None and asked.kept.is_file():
        known = json.loads(asked.kept.read_text(encoding="utf-8"))
    for name in names:
        if name not in known:
            known[name] = real(CELLS[name])
            if asked.kept is not None:
                asked.kept.write_text(json.dumps(known, indent=1), encoding="utf-8")
    torch.set_num_threads(1)
    print("|", " | ".join(HEAD), "|")
    print("|---|" + "---:|" * (len(HEAD) - 1))
    for name, price in estimated(names).items():
        print("|", " | ".join(row(price, known[name])), "|")


if __name__ == "__main__":
    main()
