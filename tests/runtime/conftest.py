"""What tests of workers share."""

from pathlib import Path

import numpy as np
import pytest


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """83 examples to train on: six whole batches of 12."""
    path = tmp_path_factory.mktemp("data") / "data.npz"
    rng = np.random.default_rng(0)
    np.savez(path, train_image=rng.random((83, 2, 2), np.float32), test_image=rng.random((31, 2, 2), np.float32))
    return path
