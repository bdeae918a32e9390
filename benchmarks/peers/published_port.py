"""Train with a checkout of the published PyTorch port of HLR (github.com/nlee-208/HLRM).

Its model and its batch generator are imported from the checkout; what its training loop does with a
batch is done here. Hyperparameters are the defaults of its command line. It differs from the paper,
and from hlr_jax, in more than one place, so that only its speed is of interest.
"""

import contextlib
import functools
import importlib
import os
import sys
from collections.abc import Iterator
from types import ModuleType, SimpleNamespace

import numpy as np
import torch
import torch.nn.functional as F

from benchmarks.peers import torch_device
from hlr_jax.data import Interactions

# Our models and the port's names for them.
TYPES = {"hlr": "base", "hlrpp": "plus"}
BATCH_SIZE = 5000
_HISTORY_LENGTH = 50
_DIM = 100
_SLOTS = 20
_LEARNING_RATE = 2e-5
_GRADIENT_NORM = 3.0
_MARGIN = 0.2
_REQUIREMENTS = "pandas scipy scikit-learn"


class CheckoutError(ValueError):
    """The folder cannot be used; the message says what to do."""


def load(folder: str) -> tuple[ModuleType, ModuleType]:
    """Import the modules `model` and `generator` of a checkout.

    Raises:
      CheckoutError: the folder is not a checkout, or a package that it needs is missing.
    """
    for file in ("model.py", "generator.py", "_utils.py"):
        if not os.path.isfile(os.path.join(folder, file)):
            raise CheckoutError(
                f"--reference_dir={folder}: holds no {file}; name a checkout of "
                "https://github.com/nlee-208/HLRM"
            )
    try:
        with _first_on_path(os.path.abspath(folder)):
            model, generator = map(importlib.import_module, ("model", "generator"))
    except ImportError as error:
        raise CheckoutError(
            f"--reference_dir={folder}: {error}; the checkout needs packages of its own: "
            f"pip install {_REQUIREMENTS}"
        ) from error
    if not (hasattr(model, "HLRM") and hasattr(generator, "BatchGenerator")):
        raise CheckoutError(f"--reference_dir={folder}: no model.HLRM, generator.BatchGenerator")
    # Batches are put on a GPU by name; here they go to the device in use.
    generator.torch = SimpleNamespace(
        as_tensor=lambda data, device: torch.as_tensor(data, device=torch_device.device())
    )
    return model, generator


@contextlib.contextmanager
def _first_on_path(folder: str) -> Iterator[None]:
    sys.path.insert(0, folder)
    try:
        yield
    finally:
        sys.path.remove(folder)


class PublishedTrainer:
    """Training steps, sampling included; as in the port, an epoch's last batch is left out."""

    def __init__(
        self, folder: str, name: str, interactions: Interactions, batch_size: int = BATCH_SIZE
    ) -> None:
        model, generator = load(folder)
        import scipy.sparse

        shape = interactions.num_users, interactions.num_items
        ones = np.ones(len(interactions), np.int32)
        pairs = scipy.sparse.csr_matrix((ones, interactions.items, interactions.offsets), shape)
        self.batch_size = batch_size
        self._generator = generator.BatchGenerator(
            interactions=pairs,
            batch_size=batch_size,
            num_negatives=1,
            max_num_prefs=_HISTORY_LENGTH,
        )
        self._model = model.HLRM(_DIM, _SLOTS, *shape, model_type=TYPES[name])
        self._model.to(torch_device.device())
        self._optimizer = torch.optim.Adam(self._model.parameters(), lr=_LEARNING_RATE)
        self._batches = max(self._generator.n_batches - 1, 1)
        self._next = 0

    def run(self, steps: int) -> None:
        """Take steps."""
        self._model.train()
        for _ in range(steps):
            batch = self._generator._batch_triplets(self._next % self._batches)
            self._next += 1
            self._optimizer.zero_grad()
            user, positive, negative, *relations = self._model(*batch)
            loss = _loss(user, positive - relations[0], negative - relations[1])
            loss.backward()
            torch.nn.utils.clip_grad_norm_(self._model.parameters(), _GRADIENT_NORM)
            self._optimizer.step()
            loss.item()  # The port keeps a running sum.


def published_trainer(
    platform: str, folder: str, name: str, interactions: Interactions, batch_size: int
) -> PublishedTrainer:
    """Build a trainer of the port on a platform, `cpu` or `gpu`."""
    torch_device.use(platform)
    return PublishedTrainer(folder, name, interactions, batch_size)


_loss = functools.partial(F.triplet_margin_loss, margin=_MARGIN)
