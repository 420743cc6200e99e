"""A skorch net whose module is an ensemble and whose train step repels its members."""

from __future__ import annotations

import math
from typing import Any

import torch
from skorch import NeuralNetClassifier
from skorch.callbacks import Callback, EpochTimer, PassthroughScoring
from skorch.dataset import unpack_data
from skorch.utils import to_tensor
from torch import Tensor, nn

from sklearn_fordes.particles import Ensemble, Repulsion, accumulate_gradients
from sklearn_fordes.training._data import Batches, Rows


def batch_first(outputs: Tensor) -> Tensor:
    """(M, B, C) → (B, M, C): skorch concatenates and counts along the first axis."""
    return outputs.transpose(0, 1)


def mean_probability(logits: Tensor) -> Tensor:
    """(B, M, C) → (B, C): the ensemble's probability is the mean of its members', in float64."""
    return logits.double().softmax(-1).mean(1)


class EnsembleLogLoss(nn.Module):
    """Log loss of the members' mean probability, in nats per row.

    Training never descends this (it would couple the members); validation reports it.
    """

    def forward(self, logits: Tensor, y: Tensor, sample_weight: Tensor | None = None) -> Tensor:
        """Return the (weighted) mean over rows of ``−log mean_i p_i(y)``; logits (B, M, C)."""
        log_prob = logits.log_softmax(-1).logsumexp(1) - math.log(logits.shape[1])
        losses = nn.functional.nll_loss(log_prob, y, reduction="none")
        return (losses if sample_weight is None else losses * sample_weight).mean()


class ParticleNet(NeuralNetClassifier):
    """Trains the members of an ensemble together as particles.

    Works on `Rows` in `Batches`; what leaves `infer` is batch first, ``(B, M, C)``, and
    `predict_proba` is the ensemble's mean probability, so that skorch's callbacks that score
    predictions do what they say.

    Parameters
    ----------
    module : type or callable, default=Ensemble
    repulsion : Repulsion, optional
        None trains a deep ensemble.
    **kwargs
        As in `skorch.NeuralNetClassifier`.
    """

    def __init__(
        self,
        module: Any = Ensemble,
        *args: Any,
        repulsion: Repulsion | None = None,
        criterion: Any = EnsembleLogLoss,
        dataset: Any = Rows,
        iterator_train: Any = Batches,
        iterator_valid: Any = Batches,
        train_split: Any = None,
        predict_nonlinearity: Any = mean_probability,
        verbose: int = 0,
        **kwargs: Any,
    ) -> None:
        self.repulsion = repulsion
        super().__init__(
            module,
            *args,
            criterion=criterion,
            dataset=dataset,
            iterator_train=iterator_train,
            iterator_valid=iterator_valid,
            train_split=train_split,
            predict_nonlinearity=predict_nonlinearity,
            verbose=verbose,
            **kwargs,
        )

    @property
    def _default_callbacks(self) -> list[tuple[str, Callback]]:
        # skorch's own would predict the whole validation set once more each epoch, and print.
        return [
            ("epoch_timer", EpochTimer()),
            *(
                (name, PassthroughScoring(name, on_train=name != "valid_loss"))
                for name in ("train_loss", "driving_loss", "repulsion", "valid_loss")
            ),
        ]

    def initialize_optimizer(self, triggered_directly: Any = None) -> ParticleNet:
        """Make the optimizer, with weight decay on weights only: not on biases and norms."""
        super().initialize_optimizer()
        for group in list(self.optimizer_.param_groups):
            # A member's vector is a matrix in the stack.
            vectors = [p for p in group["params"] if p.ndim <= 2]
            matrices = [p for p in group["params"] if p.ndim > 2]
            if "weight_decay" not in group or not vectors:
                continue
            if matrices:
                group["params"] = matrices
                self.optimizer_.add_param_group({**group, "params": vectors, "weight_decay": 0.0})
            else:
                group["weight_decay"] = 0.0
        return self

    def train_step_single(self, batch: Any, **fit_params: Any) -> dict[str, Tensor]:
        """Leave the direction of one particle step in the gradients.

        Returns
        -------
        dict
            ``loss``: what is descended, summed over members; ``y_pred``: logits (B, M, C).

        Raises
        ------
        ValueError
            If the loss is not finite.
        """
        self._set_training(True)
        inputs, y = unpack_data(batch)
        step = accumulate_gradients(
            self.module_, inputs["X"], y, inputs.get("sample_weight"), self.repulsion
        )
        means = torch.stack([step.driving_loss, step.repulsion]).mean(1)
        driving_loss, repulsion = means.tolist()  # the one wait for a GPU
        loss = self.module_.n_members * (driving_loss + repulsion)
        if not math.isfinite(loss):
            raise ValueError(self.divergence_message("training loss"))
        self.history.record_batch("driving_loss", driving_loss)
        self.history.record_batch("repulsion", repulsion)
        return {"loss": torch.tensor(loss), "y_pred": batch_first(step.logits)}

    def on_epoch_end(self, net: NeuralNetClassifier, **kwargs: Any) -> None:
        """Mark the epoch as whole: an interrupted one is not."""
        super().on_epoch_end(net, **kwargs)
        self.history.record("completed", True)

    @property
    def n_epochs(self) -> int:
        """Number of epochs completed."""
        return sum("completed" in epoch for epoch in self.history)

    def divergence_message(self, what: str) -> str:
        """Say when `what` stopped being finite and what to lower."""
        rate = self.optimizer_.param_groups[0]["lr"]
        repelled = "" if self.repulsion is None else " or repulsion_strength"
        return (
            f"Got a {what} that is not finite (NaN or infinite) in epoch "
            f"{len(self.history)}, but expected finite numbers. Lower lr (now {rate:g}){repelled}, "
            "or scale the input to unit variance."
        )

    def infer(self, x: Any, **fit_params: Any) -> Tensor:
        """Evaluate the members on a batch's inputs: logits (B, M, C)."""
        X = x["X"] if isinstance(x, dict) else x
        return batch_first(self.module_(to_tensor(X, device=self.device)))

    def get_loss(
        self, y_pred: Tensor, y_true: Tensor, X: Any = None, training: bool = False
    ) -> Tensor:
        """Return the ensemble's log loss on a batch, with its rows' weights if it has any.

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
