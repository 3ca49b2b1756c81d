"""Which rows of a table are void: nothing may be concluded from them. Pure."""

import pandas as pd

from harness.validity import fatal_codes


def is_void(table: pd.DataFrame) -> "pd.Series[bool]":
    """Whether each row carries a fatal code."""
    return table["validity"].map(lambda told: bool(fatal_codes(told))).astype(bool)
