"""How near the dry run's estimates are to real cells: seconds of CPU, side by side.

    python scripts/benchmarks/price.py                 # all cells, a quarter of an hour
    python scripts/benchmarks/price.py smollm2_heads   # some of them

Each cell is first priced by `sweep.dry_run`, then run in a process of its own with one thread,
without W&B and with a store of its own. Both count CPU time, which other processes on the machine
change little; the clock's time stands beside it.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

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
        "layers=[2,3]",
        "problems.n=600",
        "intervention.sources=1",
        DRAWN,
    ),
    "smollm2_scale": (*SMOLLM2, "tracing=pca_last", "layers=[20,28]", FEW),
    "smollm2_interchange": (
        *SMOLLM2,
        "tracing=pca_last",
        "intervention=interchange",
        "intervention.sources=1",
        "layers=[10,25]",
        DRAWN,
    ),
    "smollm2_heads": (
        *SMOLLM2,
        "tracing=pca_last",
        "tracing.point=z",
        "tracing.heads=each",
        "intervention=ablate",
        "layers=[25]",
        "intervention.n_problems=24",
        "intervention.controls={random:5,span:0,valueless:0,other:false,shuffled:false}",
    ),
    "smollm2_screen": (
        *SMOLLM2,
        "screen=attribution",
        "screen.keep=3",
        "screen.sample=20",
        "tracing.positions=each",
        "intervention=interchange",
        "intervention.sources=1",
        "layers=[5,15,25]",
        DRAWN,
    ),
    "smollm2_all": (*SMOLLM2, "layers=[24]", "intervention=ablate", FEW),
}
"""Name -> overrides. Small cells of many kinds."""

ALWAYS = ("wandb=disabled", "threads=1")


def real(overrides: Sequence[str]) -> dict[str, float]:
    """Seconds of CPU by part of a real run, and `wall`."""
    with tempfile.TemporaryDirectory() as scratch:
        place, result = Path(scratch), Path(scratch) / "parts.json"
        watched = Path(__file__).with_name("overhead.py")
        places = (f"hydra.run.dir={place / 'run'}", f"store.path={place / 'store'}")
        subprocess.run(
            [sys.executable, watched, "--watch", result, *overrides, *ALWAYS, *places],
            check=True,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            env={**os.environ, "OMP_NUM_THREADS": "1"},
        )
        known = json.loads(result.read_text(encoding="utf-8"))
        summary = json.loads((place / "run" / "summary.json").read_text(encoding="utf-8"))
    return {"wall": known["wall"], **known["parts"], "stages": summary["seconds"]}


def main() -> None:
    """Price the cells that are asked for, run them, and print both."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("cells", nargs="*", metavar="CELL", help=", ".join(CELLS))
    asked = parser.parse_args().cells or list(CELLS)
    for name in asked:
        if not CELLS[name]:
            continue
        print(name, json.dumps(real(CELLS[name])), flush=True)


if __name__ == "__main__":
    main()
