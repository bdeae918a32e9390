"""A small trained model, and a client of its service."""

import dataclasses

import numpy as np
import pytest
from fastapi.testclient import TestClient
from support.untrained import untrained

from hlr_jax.serving import Limits, make_app


@pytest.fixture(scope="session")
def model():
    found = untrained("hlr")
    data = found.dataset
    ids = np.array([f"u{user:02}" for user in range(data.num_users)])
    titles = np.array([f"Title {item}" for item in range(data.num_items)])
    return dataclasses.replace(
        found, dataset=dataclasses.replace(data, user_ids=ids, item_titles=titles)
    )


@pytest.fixture(scope="session")
def client(model):
    app = make_app(model, Limits(users=20, k=25, ids=40, bytes=5000))
    with TestClient(app, raise_server_exceptions=False) as client:
        yield client
