import pytest

from harness.ceilings import CEILINGS
from harness.errors import UserError
from harness.hardware.limits import Limit, read_products


def conf(tmp_path, text):
    (tmp_path / "hardware").mkdir()
    (tmp_path / "hardware/mine.yaml").write_text(text, errors="surrogateescape")
    return tmp_path


def test_every_limit_and_peak_of_ours_names_its_source():
    for product in read_products().values():
        assert all(peak.source for peak in product.peaks.values())
        assert all(limit.source for limit in product.limits.values() if limit.text("1"))


def test_the_data_sheets_peaks_are_those_of_mfu_and_mbu():
    peaks, ceiling = read_products()["NVIDIA H200"].peaks, CEILINGS["NVIDIA H200"]
    assert peaks["half"].value == ceiling.flops_per_s["bfloat16"]
    assert peaks["fp8"].value == ceiling.flops_per_s["fp8"]
    assert peaks["hbm"].value == ceiling.memory_bytes_per_s


def test_a_warning_comes_before_a_failure():
    for product in read_products().values():
        for limit in product.limits.values():
            if limit.warn_below is not None and limit.fail_below is not None:
                assert limit.warn_below > limit.fail_below


def test_the_first_entry_that_fits_counts(tmp_path):
    folder = conf(
        tmp_path,
        "product: Mine\nlimits:\n  gemm.a: {fail_below: 1, source: s}\n"
        "  gemm.*: {fail_below: 2, source: s}\n",
    )
    mine = read_products(folder)["Mine"]
    assert mine.limit_of("gemm.a").fail_below == 1
    assert mine.limit_of("gemm.b").fail_below == 2
    assert mine.limit_of("memory.read") is None


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("product: Mine\nlimits:\n  a: {peak: none}\n", "there is no peak 'none'"),
        ("product: Mine\nlimits:\n  a: {fail_below: 1}\n", "a limit needs its source"),
        ("product: Mine\nlimit: {}\n", "limit"),
        ("limits: {}\n", "product"),
        ("product: [\n", "mine.yaml"),
        ("just text\n", "mine.yaml"),
        ("product: M\udcfcller\n", "cannot be read"),
        ("product: Mine\nlimits:\n  a: {fail_below: true, source: s}\n", "must be a number"),
    ],
)
def test_a_file_that_is_wrong_is_refused_in_a_sentence(tmp_path, text, said):
    with pytest.raises(UserError, match=r"mine\.yaml") as error:
        read_products(conf(tmp_path, text))
    assert said in str(error.value)


@pytest.mark.parametrize(
    ("limit", "unit", "shown"),
    [
        (Limit(peak="p", warn_below=0.8, fail_below=0.7), "B/s", "≥ 80.0 % (fail 70.0 %)"),
        (Limit(fail_below=18), "1", "≥ 18"),
        (Limit(warn_above=2e9), "B", "≤ 2.00 GB"),
        (Limit(peak="p"), "B/s", ""),
    ],
)
def test_a_limit_says_itself(limit, unit, shown):
    assert limit.text(unit) == shown
