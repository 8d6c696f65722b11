"""A plugin: an edit that writes down what its process has for itself, in the folder `WATCHED`."""

import json
import os
import signal
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from mech_arith.interventions.edits import EDITS
from mech_arith.interventions.edits.scale import Scale


@EDITS.register("watched")
@dataclass(frozen=True)
class Watched(Scale):
    """Scales, and dies where a file `die` says so, which it takes along."""

    def moved(self, coordinate: Tensor, strength: float, **more: Any) -> Tensor:
        """The new coordinates."""
        here = Path(os.environ["WATCHED"])
        seen = [os.environ.get(name) for name in ("CUDA_VISIBLE_DEVICES", "OMP_NUM_THREADS")]
        (here / f"{os.getpid()}.seen").write_text(json.dumps(seen))
        if (here / "die").exists():
            (here / "die").unlink()
            os.kill(os.getpid(), signal.SIGKILL)
        return super().moved(coordinate, strength, **more)
