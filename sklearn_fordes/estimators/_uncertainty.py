"""Where the uncertainty of a prediction comes from, and what the model has not seen."""

from __future__ import annotations

from abc import abstractmethod
from typing import Any, Self

import narwhals as nw
import numpy as np
import pandas as pd
from numpy.typing import NDArray

from sklearn_fordes import inference
from sklearn_fordes.estimators._streams import block_by_block
from sklearn_fordes.preprocessing import TabularEncoder
from sklearn_fordes.uncertainty import Uncertainty


class UncertaintyMixin:
    """`predict_uncertainty`, `ood_score` and `ood_report` of the estimators."""

    fitted_: inference.FittedEnsemble
    _is_table_: bool

    @abstractmethod
    def _as_fitted(self) -> Self:
        """Return the estimator as it is now, if it is fitted."""

    @abstractmethod
    def _checked(self, X: Any, y: Any = "no_validation") -> Any:
        """Return a checked table."""

    @abstractmethod
    def _computed(
        self,
        X: Any,
        method: str,
        *arguments: Any,
        axis: int = 0,
        chunks: inference.Chunks | None = None,
    ) -> NDArray[Any]:
        """Return what a method of the likelihood makes of outputs for checked rows."""

    @block_by_block
    def predict_uncertainty(self, X: Any) -> Uncertainty:
        """Split the uncertainty of the prediction by where it comes from.

        Parameters
        ----------
        X : array-like or data frame of shape (n_samples, n_features)

        Returns
        -------
        Uncertainty
            Arrays ``total``, ``aleatoric``, ``epistemic`` and ``support`` of shape (n_samples,).
            The total is the sum of the other three, none of them negative. For the classifier they
            are entropies in nats, and the total is that of the mean probability; for the regressor
            variances in the squared unit of the target, and the total is that of the mixture.

            The epistemic part is how much members disagree: their mutual information, or the
            variance of their means. The rest is the mean of the members' own uncertainty. A row
            with cells that are missing, of an unseen level or beyond the training range has a part
            of it as support: by how much the members' own would be smaller, on average over 16
            values of each of these columns in training, if the cells were known, times the largest
            degree to which a cell is unknown (see `ood_report`). What then remains is aleatoric.

        Notes
        -----
        A row without such cells costs one evaluation of the members, another one 17. The values are
        drawn whatever the other cells of the row are: where columns depend on each other, support
        may be too small. Cells do not count of columns that the encoder leaves out or encodes
        alike, such as identifiers. Rows that no `TabularEncoder` encodes have no support.
        """
        now = self._as_fitted()
        X = now._checked(X)
        chunks = now.fitted_.chunks()
        parts = Uncertainty(*now._computed(X, "decompose", axis=1, chunks=chunks))
        if isinstance(now.fitted_.encoder, TabularEncoder) and len(now.fitted_.encoder.samples_):
            parts = now._with_support(parts, X, chunks)
        unit = getattr(now, "target_scale_", 1.0) ** 2
        return Uncertainty(*(unit * part for part in parts))

    def _with_support(self, parts: Uncertainty, X: Any, chunks: inference.Chunks) -> Uncertainty:
        if_known, largest = parts.aleatoric.copy(), np.zeros(len(parts.aleatoric))
        encoder = self.fitted_.encoder
        for part, rows, support in encoder.support_parts(X):
            # Members are told nothing of a new identifier, nor of a known one.
            degree = support.degree * encoder.is_informative_
            largest[part] = degree.max(axis=1)
            places = np.flatnonzero(largest[part])
            if len(places):
                table = nw.from_native(rows, eager_only=True, pass_through=True)
                unknown = nw.to_native(table[places], pass_through=True)
                # A cell that is hardly unknown must not count as much as the gap beside it.
                share = degree[places] / largest[part][places, None]
                known = self.fitted_.aleatoric_if_known(unknown, share, chunks)
                if_known[part.start + places] = known
        return parts.with_support(if_known, largest)

    @block_by_block
    def ood_score(self, X: Any) -> NDArray[np.float64]:
        """Score how much rows look unlike the training data.

        Parameters
        ----------
        X : array-like or data frame of shape (n_samples, n_features)

        Returns
        -------
        ndarray of shape (n_samples,)
            Larger is more outlying, as in PyOD. (scikit-learn's ``score_samples`` has the other
            sign.)

        Notes
        -----
        The score is the epistemic uncertainty plus the surprise, in nats, at cells that training
        rows say nothing of. A gap surprises by −log of the share of gaps in its column, a cell of
        an unseen level by −log of the share of rows that are expected to have one, and a number d
        spreads beyond the training range by ``d² / (d² + 9)`` of log(number of training rows + 1).
        The surprise of a row, at gaps and unseen levels and at numbers beyond the range, counts as
        far as it exceeds that of 95 % of the training rows, each judged as if the others were the
        training rows. For the regressor a nat counts as the variance of the training targets. Most
        rows have no surprise, and their score is the epistemic part of `predict_uncertainty`.
        `ood_report` names the cells. Rows that no `TabularEncoder` encodes have no surprise.
        """
        now = self._as_fitted()
        X = now._checked(X)
        score: NDArray[np.float64] = now._computed(X, "decompose", axis=1)[2]
        encoder = now.fitted_.encoder
        if isinstance(encoder, TabularEncoder):
            for part, _, support in encoder.support_parts(X):
                score[part] += encoder.surprise_of_rows(support)
        unit = getattr(now, "target_scale_", 1.0) ** 2
        return unit * score

    def ood_report(self, X: Any) -> pd.DataFrame:
        """List the cells of rows that the training rows say nothing of.

        Parameters
        ----------
        X : array-like or data frame of shape (n_samples, n_features)

        Returns
        -------
        DataFrame
            A line for each such cell: ``row`` (its position), ``column``, ``reason`` ("missing",
            "unseen", "below" or "above"), ``degree`` (how far it is unknown: 1 if missing or
            unseen, and ``d² / (d² + 9)`` for a number d spreads beyond the training range) and
            ``surprise`` in nats, as from `TabularEncoder.unsupported`.

        Raises
        ------
        ValueError
            If rows are not encoded by a `TabularEncoder`.
        """
        now = self._as_fitted()
        encoder = now.fitted_.encoder
        if not isinstance(encoder, TabularEncoder):
            by = f"encoded by {type(encoder).__name__}" if now._is_table_ else "without an encoder"
            raise ValueError(
                f"Got rows {by}, but expected a TabularEncoder, which knows the ranges and "
                "levels of the training rows: encoder=TabularEncoder() can come before a module."
            )
        return encoder.unsupported_checked(now._checked(X))
