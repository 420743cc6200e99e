"""The public names of `sklearn_fordes.streaming`."""

from sklearn_fordes.streaming._blocks import Block, Blocks, Share, Source
from sklearn_fordes.streaming._kept import Kept, LowestHashes, rows_kept
from sklearn_fordes.streaming._opening import blocks_to_predict, is_stream, opened
from sklearn_fordes.streaming._summary import ExactSum, Summary
from sklearn_fordes.streaming._tables import column_names, joined, taken, without_columns
