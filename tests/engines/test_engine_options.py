"""Options of an engine: the defaults, and errors that say what there is."""

import pytest

from realesr.engines.engine_options import checked_options
from realesr.errors import UsageError

KNOWN = {"memory": ("auto", "cuda-bindings", "pycuda"), "graphs": ("0", "1")}


def test_what_is_not_given_has_its_default() -> None:
    assert checked_options("tensorrt", {}, KNOWN) == {"memory": "auto", "graphs": "0"}
    assert checked_options("tensorrt", {"graphs": "1"}, KNOWN) == {"memory": "auto", "graphs": "1"}


def test_what_is_given_is_not_changed() -> None:
    given = {"graphs": "1"}
    checked_options("tensorrt", given, KNOWN)["memory"] = "pycuda"
    assert given == {"graphs": "1"}
    assert KNOWN["memory"][0] == "auto"


@pytest.mark.parametrize(
    ("given", "known", "message"),
    [
        (
            {"memroy": "pycuda"},
            KNOWN,
            "engine tensorrt got the option memroy, expected graphs or memory: did you mean memory?",
        ),
        ({"zzz": "1"}, KNOWN, "engine tensorrt got the option zzz, expected graphs or memory"),
        ({"zzz": "1"}, {"graphs": ("0", "1")}, "engine tensorrt got the option zzz, expected graphs"),
        ({"zzz": "1"}, {}, "engine tensorrt got the option zzz, but it has no options"),
        (
            {"memory": "cupy"},
            KNOWN,
            "engine tensorrt got the option memory=cupy, expected memory=auto, memory=cuda-bindings or memory=pycuda",
        ),
        ({"graphs": ""}, KNOWN, "engine tensorrt got the option graphs=, expected graphs=0 or graphs=1"),
        ({"graphs": "1", "Memory": "pycuda"}, KNOWN, "did you mean memory?"),
    ],
)
def test_what_does_not_exist_is_an_error_with_what_does(
    given: dict[str, str], known: dict[str, tuple[str, ...]], message: str
) -> None:
    with pytest.raises(UsageError) as caught:
        checked_options("tensorrt", given, known)
    assert str(caught.value).endswith(message)
    assert "--" not in str(caught.value)
