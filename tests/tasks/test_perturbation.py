"""The text that a request carries its perturbation as."""

import pytest
from safebasin.errors import InputError
from safebasin.tasks.perturbation import Perturbation


def test_the_text_is_canonical() -> None:
    assert Perturbation(2, -0.35).text == '{"alpha":-0.35,"direction":2}'
    assert Perturbation(2, -0.0).text == Perturbation(2, 0).text == '{"alpha":0.0,"direction":2}'
    assert Perturbation.parse(' {"direction": 1, "alpha": 0.5}').text == Perturbation(1, 0.5).text


def test_at_the_origin_all_directions_are_one() -> None:
    assert Perturbation(5, 0.0).weights == Perturbation(7, -0.0).weights
    assert Perturbation(5, 0.1).weights == Perturbation(5, 0.1)


@pytest.mark.parametrize(
    "text",
    ["", "3", "[1, 2]", "{}", '{"alpha": 0.1}', '{"alpha": "0.1", "direction": 0}', '{"alpha": 0.1, "direction": true}',
     '{"alpha": NaN, "direction": 0}', '{"alpha": 0.1, "direction": -1}', '{"alpha": 0.1, "direction": 0, "norm": 2}'],
)  # fmt: skip
def test_anything_else_is_refused(text: str) -> None:
    with pytest.raises(InputError, match="is no perturbation"):
        Perturbation.parse(text)
