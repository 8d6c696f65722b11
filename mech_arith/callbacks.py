"""What Hydra calls at the end of a sweep."""

from pathlib import Path
from typing import Any

from hydra.experimental.callback import Callback
from omegaconf import DictConfig


class SweepOverview(Callback):
    """Prints the table of a sweep's cells."""

    def on_multirun_end(self, config: DictConfig, **kwargs: Any) -> None:
        """Read back every job's directory, in the order of the jobs."""
        from mech_arith.overview import print_overview

        directory = Path(config.hydra.sweep.dir)
        jobs = [path for path in directory.iterdir() if (path / ".hydra").is_dir()]
        jobs.sort(key=lambda path: (len(path.name), path.name))
        print_overview(jobs)
