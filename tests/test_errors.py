"""Errors as another process is sent them."""

import errno
import pickle

import pytest
from safebasin.errors import InputError, StorageError, sendable


class Stubborn(Exception):
    """Cannot be made again from its text, as many errors of libraries cannot."""

    def __init__(self, one: int, two: int) -> None:
        super().__init__(f"{one} and {two}")


@pytest.mark.parametrize(
    ("error", "kind", "said"),
    [
        (InputError("a is wrong"), InputError, "a is wrong"),
        (StorageError("damaged"), StorageError, "damaged"),
        (OSError(errno.ENOSPC, "No space left on device", "x.bin"), StorageError, "The disk is full: x.bin"),
        (Stubborn(1, 2), RuntimeError, "Stubborn: 1 and 2"),
    ],
)
def test_an_error_arrives_with_its_kind_and_its_traceback(error: Exception, kind: type, said: str) -> None:
    with pytest.raises(type(error)) as caught:
        raise error
    arrived = pickle.loads(pickle.dumps(sendable(caught.value)))
    assert type(arrived) is kind
    assert str(arrived).startswith(said)
    assert "test_an_error_arrives" in arrived.__notes__[0]
