"""Somebody who owns everything, for tests that ask every address."""

import pytest
from flask import Flask

from tests.test_access_matrix import House
from tests.world import cast, furnish


@pytest.fixture
def house(app: Flask) -> House:
    """Everybody of the cast with a browser; the owner has one of each thing."""
    users = cast(app)
    owner = users["owner"]
    assert owner
    return House(app, furnish(app, owner), users)
