"""A skorch net whose module is an ensemble and whose train step repels its members."""

from __future__ import annotations

import math
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import numpy as np
import torch
from skorch import NeuralNet
from skorch.callbacks import Callback, EpochTimer, PassthroughScoring
from skorch.dataset import get_len, unpack_data
from skorch.utils import to_tensor
from torch import Tensor

from sklearn_fordes.particles import (
    BuiltRepulsion,
    CategoricalLikelihood,
    Ensemble,
    FunctionOfEnsemble,
    Likelihood,
    accumulate_gradients,
    derived_seed,
    seeded_generators,
)
from sklearn_fordes.training._averaging import WeightAverage
from sklearn_fordes.training._data import BatchIterator, DeviceDataset

_RECORDS = ("train_loss", "driving_loss", "repulsion", "relative_loss")
# Decay of the running mean over steps of the members' relative loss.
_RELATIVE_LOSS_DECAY = 0.95
# Numbers of single precision that a CPU's fused optimizer updates at a time.
_FUSED_AT_A_TIME = 16
_CATEGORICAL = CategoricalLikelihood()


class MixtureLoss(torch.nn.Module):
    """Loss of the members' equal mixture: training never descends it, validation reports it.

    Parameters
    ----------
    likelihood : Likelihood
    """

    def __init__(self, likelihood: Likelihood) -> None:
        super().__init__()
        self.likelihood = likelihood

    def forward(self, outputs: Tensor, y: Tensor, sample_weight: Tensor | None = None) -> Tensor:
        """Return the (weighted) mean over rows; outputs (B, M, C), as skorch has them."""
        losses = self.likelihood.mixture_losses(outputs.transpose(0, 1), y)
        return (losses if sample_weight is None else losses * sample_weight).mean()


class ParticleNet(NeuralNet):
    """Train the members of an ensemble together as particles.

    It works on a `DeviceDataset` in batches of a `BatchIterator`. `infer` returns tensors of shape
    (B, M, C), since skorch concatenates and counts along the first axis.

    Parameters
    ----------
    module : Ensemble
        Trained in place.
    likelihood : Likelihood, default=CategoricalLikelihood()
        What the outputs mean.
    repulsion : BuiltRepulsion, optional
        None trains a deep ensemble.
    strength : float, default=0.0
        Strength of the repulsion.
    ema_decay : float, default=0.0
        Decay of the moving average of the weights, which the module holds outside of training
        epochs: in validation and afterwards. It begins anew with each run. 0 averages nothing.
    seed : int, default=0
        Determines the draws of modules and functions that use torch's global generator.
    **kwargs
        As in `skorch.NeuralNet`.
    """

    def __init__(
        self,
        module: Ensemble,
        *args: Any,
        likelihood: Likelihood = _CATEGORICAL,
        repulsion: BuiltRepulsion | None = None,
        strength: float = 0.0,
        ema_decay: float = 0.0,
        seed: int = 0,
        dataset: Any = DeviceDataset,
        iterator_train: Any = BatchIterator,
        iterator_valid: Any = BatchIterator,
        train_split: Any = None,
        verbose: int = 0,
        **kwargs: Any,
    ) -> None:
        self.likelihood = likelihood
        self.repulsion = repulsion
        self.strength = strength
        space = None if repulsion is None else repulsion.space
        self.space_is_users = isinstance(space, FunctionOfEnsemble)
        self.draws_globally = module.draws_globally or self.space_is_users
        self.ema_decay = ema_decay
        self.seed = seed
        self.n_steps = 0
        self.learning_rates: list[float] = []  # Of the last epoch, for each parameter group.
        self.relative_loss: Tensor | float = 1.0
        self.average: WeightAverage | None = None  # It exists while training.
        super().__init__(
            module,
            *args,
            **{"criterion": MixtureLoss, "criterion__likelihood": likelihood, **kwargs},
            dataset=dataset,
            iterator_train=iterator_train,
            iterator_valid=iterator_valid,
            train_split=train_split,
            verbose=verbose,
        )

    @property
    def _default_callbacks(self) -> list[tuple[str, Callback]]:
        # skorch's own would predict the whole validation set once more each epoch, and print.
        return [
            ("epoch_timer", EpochTimer()),
            *(
                (name, PassthroughScoring(name, on_train=name != "valid_loss"))
                for name in (*_RECORDS, "valid_loss")
            ),
        ]

    def initialize_callbacks(self) -> ParticleNet:
        """Make the callbacks, and check the names in parameters such as ``callbacks__…``.

        Raises
        ------
        ValueError
            If there is no callback of a name.
        """
        super().initialize_callbacks()
        names = [name for name, _ in self.callbacks_]
        for parameter, value in vars(self).items():
            prefix, _, rest = parameter.partition("__")
            name = rest.partition("__")[0]
            if prefix == "callbacks" and name not in ("", *names) and value is not None:
                raise ValueError(
                    f"Got {parameter}, but there is no callback {name!r}; expected one of {names}."
                )
        return self

    def initialize_optimizer(self, triggered_directly: Any = None) -> ParticleNet:
        """Make the optimizer, with groups of parameters that it treats alike.

        Weights decay, biases and norms do not. The fused kernels of a CPU round the last numbers of
        a tensor in another way than the others; parameters of a size for which this would depend on
        the number of members take other kernels.
        """
        super().initialize_optimizer()
        for group in list(self.optimizer_.param_groups):
            first, *others = _alike(group)
            group.update(first)
            for other in others:
                self.optimizer_.add_param_group(other)
        self.learning_rates = [group["lr"] for group in self.optimizer_.param_groups]
        return self

    def get_split_datasets(self, X: Any, y: Any = None, **fit_params: Any) -> tuple[Any, Any]:
        """Return training rows, and the validation rows that they came with."""
        dataset = self.get_dataset(X, y)
        return dataset, getattr(dataset, "valid", None)

    def on_train_begin(self, net: NeuralNet, *args: Any, **kwargs: Any) -> None:
        """Forget the average of an earlier run that failed."""
        super().on_train_begin(net, *args, **kwargs)
        self.average = None

    def on_train_end(self, net: NeuralNet, *args: Any, **kwargs: Any) -> None:
        """Drop the weights of the last step, which the average replaces, and evaluate from now."""
        super().on_train_end(net, *args, **kwargs)
        self.average = None
        self.module_.eval()

    def run_single_epoch(
        self, iterator: Any, training: bool, prefix: str, step_fn: Any, **fit_params: Any
    ) -> None:
        """Run an epoch: train the weights of the last step, and validate their average.

        The figures of training steps stay on the device until the epoch ends.

        Raises
        ------
        ValueError
            If a training loss is not finite.
        """
        if not training:
            super().run_single_epoch(iterator, training, prefix, step_fn, **fit_params)
            return
        if self.ema_decay and self.average is None:
            # Not before: callbacks may set the weights when a run begins.
            self.average = WeightAverage(self.module_.parameters(), self.ema_decay)
        figures = []
        with nullcontext() if self.average is None else self.average.training():
            for batch in iterator:
                self.notify("on_batch_begin", batch=batch, training=True)
                step = step_fn(batch, **fit_params)
                figures.append(step["figures"])
                self.history.record_batch("train_batch_size", get_len(batch[0]))
                self.notify("on_batch_end", batch=batch, training=True, **step)
        # The only host–device synchronisation of an epoch.
        self._record(torch.stack(figures).tolist())
        self.history.record("train_batch_count", len(figures))

    def _record(self, figures: list[list[float]]) -> None:
        for batch, (driving_loss, repulsion, relative_loss) in zip(
            self.history[-1]["batches"], figures, strict=True
        ):
            loss = self.module_.n_members * (driving_loss + repulsion)
            if not math.isfinite(loss):
                raise ValueError(self.divergence_message("training loss"))
            values = (loss, driving_loss, repulsion, relative_loss)
            batch.update(zip(_RECORDS, values, strict=True))

    def train_step(self, batch: Any, **fit_params: Any) -> Any:
        """Make a step, however often its optimizer evaluates the objective, and count it."""
        step = super().train_step(batch, **fit_params)
        latest = step["figures"][-1]
        latest = latest if latest.device.type == "mps" else latest.double()
        mean = _RELATIVE_LOSS_DECAY * self.relative_loss + (1 - _RELATIVE_LOSS_DECAY) * latest
        self.relative_loss = mean.clamp(max=1.0)
        self.n_steps += 1
        if self.average is not None:
            self.average.update()
        return step

    def train_step_single(self, batch: Any, **fit_params: Any) -> dict[str, Tensor]:
        """Leave the direction of one particle step in the gradients.

        Returns
        -------
        dict
            ``loss``: the objective, summed over members; ``y_pred``: outputs (B, M, C);
            ``figures``: driving loss, repulsion and relative loss, means over members.

        Raises
        ------
        ValueError
            If the module can't be trained.
        """
        self._set_training(True)
        inputs, y = unpack_data(batch)
        X, weight = inputs["X"], inputs.get("sample_weight")
        repulsion, strength = self._repulsion_now(len(X))
        try:
            with self._own_draws():
                step = accumulate_gradients(
                    self.module_,
                    X,
                    y,
                    weight,
                    repulsion=repulsion,
                    strength=strength,
                    likelihood=self.likelihood,
                    extra_inputs=inputs.get("extra_inputs"),
                )
        except torch.OutOfMemoryError:
            raise
        except RuntimeError as error:
            self._explain(error)
            raise
        relative_loss = self.likelihood.relative_loss(step.driving_loss, step.outputs, y, weight)
        figures = torch.stack([step.driving_loss, step.repulsion, relative_loss]).mean(1)
        loss = self.module_.n_members * (figures[0] + figures[1])
        return {"loss": loss, "y_pred": step.outputs.transpose(0, 1), "figures": figures}

    def validation_step(self, batch: Any, **fit_params: Any) -> dict[str, Tensor]:
        """Evaluate the loss of a batch; a module that draws then too gets a seed of this step."""
        with self._own_draws():
            step: dict[str, Tensor] = super().validation_step(batch, **fit_params)
        return step

    def _repulsion_now(self, n_rows: int) -> tuple[BuiltRepulsion | None, float | Tensor]:
        """Return the repulsion of the step that begins, if it acts, and the potential's factor."""
        repulsion = self.repulsion
        if repulsion is None:
            return None, 0.0
        if not self.strength or self.n_steps % repulsion.period:
            # Stein's update changes the driving force at a strength of zero as well.
            return (repulsion if repulsion.mixes_driving_force else None), 0.0
        epoch = len(self.history) - 1
        return repulsion, self.strength * unit_of_strength(
            repulsion, epoch, n_rows, self.relative_loss
        )

    def _own_draws(self) -> AbstractContextManager[None]:
        """Give code of the user's that draws from global generators a seed for this step."""
        if not self.draws_globally:
            return nullcontext()
        return seeded_generators(derived_seed(self.seed, self.n_steps), self.device)

    def _explain(self, error: RuntimeError) -> None:
        """Raise an error that names the cause if a module fails in its first step."""
        is_first = len(self.history[-1]["batches"]) == 1
        if not is_first or self.space_is_users:
            return
        raise ValueError(
            f"Got a module that can't be trained ({error}), but expected one that torch.func.vmap "
            "can batch over members, and whose output can be differentiated twice, by its input "
            "and its weights. repulsion='none', 'weight' or 'function' need the weights only."
        ) from error

    def check_module(self, X: Tensor) -> None:
        """Evaluate the module on two rows, so that one of another shape fails before training.

        Parameters
        ----------
        X : Tensor of shape (n_rows, ...)

        Raises
        ------
        ValueError
            If the module can't be evaluated, or its outputs have another shape.
        """
        rows = X[:2]
        try:
            with self._own_draws(), torch.no_grad():
                shape = tuple(self.module_.eval()(rows).shape[1:])
        except torch.OutOfMemoryError:
            raise
        except RuntimeError as error:
            raise ValueError(
                f"Got a module that can't be evaluated on rows of shape {tuple(X.shape[1:])} "
                f"({error}), but expected one that maps them to outputs, and that torch.func.vmap "
                "can batch over members."
            ) from error
        expected = (len(rows), self.likelihood.n_outputs)
        if shape != expected:
            raise ValueError(
                f"Got output of shape {shape} from the module for {len(rows)} rows, but expected "
                f"{expected}: (n_rows, n_outputs), {self.likelihood.outputs_are}."
            )

    def on_epoch_end(self, net: NeuralNet, **kwargs: Any) -> None:
        """Mark the epoch as whole (an interrupted one is not), and note its learning rates.

        The callbacks come later, a scheduler among them.
        """
        super().on_epoch_end(net, **kwargs)
        self.history.record("completed", True)
        self.learning_rates = [group["lr"] for group in self.optimizer_.param_groups]

    @property
    def n_epochs(self) -> int:
        """Number of epochs completed."""
        return sum("completed" in epoch for epoch in self.history)

    def divergence_message(self, what: str) -> str:
        """Say when `what` stopped being finite and what to lower."""
        rate = self.optimizer_.param_groups[0]["lr"]
        repels = self.repulsion is not None and self.strength
        repelled = " or repulsion_strength" if repels else ""
        return (
            f"Got a {what} that is not finite (NaN or infinite) in epoch "
            f"{len(self.history)}, but expected finite numbers. Lower lr (now {rate:g}){repelled}, "
            "or scale the input to unit variance."
        )

    def infer(self, x: Any, **fit_params: Any) -> Tensor:
        """Evaluate the members on a batch's inputs: outputs (B, M, C)."""
        X = to_tensor(x["X"] if isinstance(x, dict) else x, device=self.device)
        outputs: Tensor = self.module_(X.to(self.module_.dtype))
        return outputs.transpose(0, 1)

    def get_loss(
        self, y_pred: Tensor, y_true: Tensor, X: Any = None, training: bool = False
    ) -> Tensor:
        """Return the ensemble's loss on a batch, with its rows' weights if it has any.

        Raises
        ------
        ValueError
            If it is not finite.
        """
        weight = X.get("sample_weight") if isinstance(X, dict) else None
        loss: Tensor = self.criterion_(y_pred, y_true, weight)
        if not math.isfinite(loss.item()):
            raise ValueError(self.divergence_message("validation loss"))
        return loss

    def _get_predict_nonlinearity(self) -> Any:
        return lambda outputs: self.likelihood.predict(outputs.transpose(0, 1))

    def predict(self, X: Any) -> Any:
        """Predict classes, from 0 to C − 1, or means, so that callbacks can score them."""
        predicted = self.predict_proba(X)
        return predicted.argmax(1) if self.likelihood.kind == "classifier" else predicted

    @property
    def classes_(self) -> Any:
        """The classes, for scorers of scikit-learn's."""
        return np.arange(self.likelihood.n_outputs)

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.estimator_type = self.likelihood.kind
        return tags

    def __getstate__(self) -> dict[str, Any]:
        # An average belongs to the very tensors that it swaps.
        return {**super().__getstate__(), "average": None}


def unit_of_strength(
    repulsion: BuiltRepulsion, epoch: int, n_rows: int, relative_loss: float | Tensor
) -> float | Tensor:
    """Return the factor of the potential for a strength of 1, in a step in which it acts.

    Parameters
    ----------
    repulsion : BuiltRepulsion
        It acts every `period` steps, `period` times as strongly, and rises during `warmup` epochs.
    epoch : int
        Counted from zero.
    n_rows : int
        Number of rows in the batch.
    relative_loss : float or Tensor
        Running mean of the members' relative loss. A tensor makes a tensor: what the strength
        depends on stays on the device.

    Returns
    -------
    float or Tensor
    """
    ramp = min(1.0, (epoch + 1) / (repulsion.warmup + 1))
    return repulsion.period * ramp * (relative_loss if repulsion.relative else 1 / n_rows)


def _alike(group: dict[str, Any]) -> list[dict[str, Any]]:
    """Divide a parameter group by whether weights decay, and by whether kernels are fused."""
    parts: dict[tuple[bool, bool], dict[str, Any]] = {}
    for parameter in group["params"]:
        decays = parameter.ndim > 2  # A member's vector is a matrix in the stack.
        is_even = parameter.device.type != "cpu" or not parameter[0].numel() % _FUSED_AT_A_TIME
        is_fused = bool(group.get("fused")) and is_even
        settings = {**group, "params": []}
        if not decays and "weight_decay" in group:
            settings["weight_decay"] = 0.0
        if group.get("fused"):
            settings["fused"] = is_even
        key = decays and "weight_decay" in group, is_fused
        parts.setdefault(key, settings)["params"].append(parameter)
    return list(parts.values())
