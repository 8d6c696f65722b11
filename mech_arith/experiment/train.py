"""The second entrypoint: train the shipped models from scratch or from pretrained weights.

python -m mech_arith.experiment.train +train=arith_decoder
"""

import logging
import sys

import hydra
from hydra.core.config_store import ConfigStore
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from mech_arith.common.errors import UserError
from mech_arith.common.paths import conf_dir
from mech_arith.experiment.overrides import as_typed
from mech_arith.models.arithmetic.objectives import TrainSettings
from mech_arith.models.arithmetic.training import train

log = logging.getLogger(__name__)


def main() -> None:
    """Compose the configuration and train."""
    sys.argv[1:] = [as_typed(argument, TrainSettings) for argument in sys.argv[1:]]
    ConfigStore.instance().store(name="train_schema", node=TrainSettings)

    @hydra.main(version_base="1.3", config_path=str(conf_dir()), config_name="train")
    def run(config: DictConfig) -> None:
        try:
            settings = OmegaConf.to_object(config)
            assert isinstance(settings, TrainSettings)
            train(settings)
        except OmegaConfBaseException as error:
            reason = str(error).splitlines()[0]
            log.error("expected +train=arith_decoder or +train=arith_encoder, got: %s", reason)
            sys.exit(1)
        except UserError as error:
            log.error("%s", error)
            sys.exit(1)

    run()


if __name__ == "__main__":
    main()
