"""What the guests with other kernels run: ``tests/kernels``."""

import ast
from pathlib import Path

KERNELS = Path(__file__).parents[1] / "kernels"


def test_every_limit_is_of_a_test_that_the_guests_run() -> None:
    """One whose test has another name by now would be forgotten, and the test be red there."""
    listed = KERNELS.joinpath("core").read_text().splitlines()
    code = ast.parse(KERNELS.joinpath("emulated.py").read_text())
    values = {
        ast.unparse(each.target): each.value
        for each in code.body
        if isinstance(each, ast.AnnAssign)
    }
    limits = values["LIMITS"]
    assert isinstance(limits, ast.Dict)
    parts = [ast.literal_eval(key) for key in limits.keys if key]
    assert parts
    assert [part for part in parts if not any(part in line for line in listed)] == []
