import pytest
from pydantic import TypeAdapter, ValidationError

from harness.presentation import Plot


def test_a_plot_names_every_column_that_it_shows() -> None:
    plot = Plot(x="concurrency", y=["output_tok_per_s", "tpot_p50_s"], by="case")
    assert list(plot.columns()) == ["concurrency", "output_tok_per_s", "tpot_p50_s", "case"]
    assert list(Plot(x="concurrency", y=["knee"]).columns()) == ["concurrency", "knee"]


@pytest.mark.parametrize(
    "fields", [{"x": "a"}, {"x": "a", "y": []}, {"y": ["a"]}, {"x": "a", "y": ["b"], "log": True}]
)
def test_a_plot_that_shows_nothing_is_refused(fields: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        TypeAdapter(Plot).validate_python(fields)
