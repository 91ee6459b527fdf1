"""Data sets, and the batches of a bundle's fields that are cut from them."""

from sonew_compiled.runtime.data.batches import BoundData as BoundData
from sonew_compiled.runtime.data.batches import bind as bind
from sonew_compiled.runtime.data.batches import epoch_order as epoch_order
from sonew_compiled.runtime.data.dataset import Dataset as Dataset
from sonew_compiled.runtime.data.load import load_dataset as load_dataset
