"""A model: random features whose read-out is fitted, so that they regress a-(b-c)."""

import torch

from mech_arith.common.digests import tensor_digest
from mech_arith.models.attention import NOTHING, KeysValues
from mech_arith.models.base import EVERY, Model, untouched
from mech_arith.models.kinds import MODELS, Loader
from mech_arith.models.prompts import Prompts


class TinyRegressor(Model):
    """Each block writes a function of all positions at the last one, where the answer is read."""

    name, n_layers, n_heads, d_model, width_out = "tiny_regressor", 2, 1, 24, 1
    points = ("resid_pre", "mlp_out", "resid_post")
    causal, answers_at, tolerance = False, slice(-1, None), 20.0

    def __init__(self, device):
        draw = torch.Generator().manual_seed(0)
        self.device = torch.device(device)
        self.places = torch.randn(4, self.d_model, generator=draw).to(device)
        self.weights = torch.randn(2, self.d_model, self.d_model, generator=draw).to(device) / 5
        numbers = torch.randint(1000, (2000, 4), generator=draw).to(device)
        answers = (numbers[:, 0] - numbers[:, 1] + numbers[:, 2]).float()
        self.head = torch.eye(self.d_model, device=device)  # reads the features themselves
        features = self.full_pass(numbers, {})[:, 0]
        self.head = torch.linalg.lstsq(features, answers[:, None]).solution
        self.digest = tensor_digest(self.places, self.weights, self.head)

    def encode(self, problems, *, digits=0):
        numbers = [torch.from_numpy(problems.operands[name]) for name in "abc"]
        tokens = torch.stack([*numbers, 0 * numbers[0]], dim=1)
        values = problems.hypothesis.values
        spans = {value: tuple(i for i, x in enumerate("abc") if x in value) for value in values}
        return Prompts.uniform(tokens, ("a", "b", "c", "="), spans)

    def embed(self, tokens, *, start=0):
        return tokens[..., None] / 1000 * self.places

    def run_block(self, layer, resid_pre, *, start=0, past=NOTHING, tap=untouched, at=EVERY):
        written = torch.zeros_like(resid_pre)
        written[:, -1] = torch.tanh(resid_pre.mean(1) @ self.weights[layer])
        resid_post = tap("resid_post", resid_pre + tap("mlp_out", written))
        nothing = resid_pre.new_zeros(len(resid_pre), 1, resid_pre.shape[1], 1)
        return resid_post[:, at], KeysValues(nothing, nothing)  # no position is looked at later

    def read_out(self, resid):
        return resid @ self.head


@MODELS.register("tiny_regressor")
class TinyLoader(Loader):
    """Makes the model; a loader that reads files also names them, in `files`."""

    def load(self, choice, *, device, shots):
        return TinyRegressor(device)
