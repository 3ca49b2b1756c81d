# ruff: noqa: N802  (NVML's own names)

from types import SimpleNamespace

import pytest

from monitors.board import boards, pairs
from tests.monitors.conftest import FakeNvml

UNSUPPORTED = 3
SWITCH, GPU = 2, 0


class WithBoards(FakeNvml):
    """Two cards on NVLink switches, with what a board tells."""

    NVML_FI_DEV_NVLINK_SPEED_MBPS_COMMON = 90
    NVML_NVLINK_MAX_LINKS = 20
    up, remote, status = 18, SWITCH, 0

    def nvmlDeviceGetFieldValues(self, handle, fields):
        if fields == [90]:
            return [SimpleNamespace(nvmlReturn=0, value=SimpleNamespace(uiVal=26562))]
        return super().nvmlDeviceGetFieldValues(handle, fields)

    def nvmlDeviceGetNvLinkState(self, handle, link):
        self._check("nvlink", handle)
        if link >= 18:
            raise self.NVMLError(UNSUPPORTED)
        return int(link < self.up)

    def nvmlDeviceGetNvLinkRemoteDeviceType(self, _handle, _link):
        return self.remote

    def nvmlDeviceGetNvLinkRemotePciInfo(self, handle, _link):
        return SimpleNamespace(busId=b"00000000:01:00.0" if handle == 0 else b"0:00:00.0")

    def nvmlDeviceGetPciInfo(self, handle):
        return SimpleNamespace(busId=f"00000000:0{handle}:00.0")

    def nvmlDeviceGetPowerManagementLimitConstraints(self, _handle):
        return [200_000, 700_000]

    def nvmlDeviceGetRemappedRows(self, _handle):
        return (0, 1, 0, 1)

    def nvmlDeviceGetMigMode(self, _handle):
        return [0, 0]

    def nvmlDeviceGetTotalEccErrors(self, _handle, kind, since):
        return {(0, 0): 5, (1, 0): 0, (1, 1): 2}[kind, since]

    def nvmlDeviceGetTopologyCommonAncestor(self, _one, _other):
        return 50

    def nvmlDeviceGetP2PStatus(self, _one, _other, _index):
        return self.status


@pytest.fixture
def nvml():
    return WithBoards()


def test_a_board_tells_links_errors_and_limits_in_base_units(nvml):
    board, _ = boards([0, 1], nvml)
    assert (board.nvlink_links, board.nvlink_link_bytes_per_s) == (18, 26.562e9)
    assert (board.ecc_corrected, board.ecc_uncorrected, board.ecc_uncorrected_ever) == (5, 0, 2)
    assert (board.rows_remapped, board.row_remap_pending, board.row_remap_failed) == (
        1,
        False,
        True,
    )
    assert board.power_limit_max_w == 700.0
    assert board.throttle_reasons == ("sw_power_cap",)
    assert board.mig is False
    assert nvml.num_open == 0


def test_what_a_board_cannot_say_is_none(nvml):
    board = boards([0], nvml)[0]
    assert board.persistence is board.numa_node is board.vbios is None
    nvml.broken = {("nvlink", 0): UNSUPPORTED}
    assert boards([0], nvml)[0].nvlink_links is None, "a card without NVLink"


def test_a_lost_card_and_a_machine_without_a_driver_have_no_boards(nvml, fake_nvml):
    nvml.broken = {("handle", 1): 15}
    assert len(boards([0, 1], nvml)) == 1
    assert boards([0], fake_nvml(has_driver=False)) == ()
    assert pairs([0, 1], fake_nvml(has_driver=False)) == ()


def test_links_through_a_switch_lead_to_every_card(nvml):
    (pair,) = pairs([0, 1], nvml)
    assert (pair.gpus, pair.nvlink_links, pair.p2p) == ((0, 1), 18, True)
    assert pair.level == "across NUMA nodes"
    nvml.up, nvml.status = 9, 1
    (pair,) = pairs([0, 1], nvml)
    assert (pair.nvlink_links, pair.p2p) == (9, False)


def test_straight_links_count_where_they_lead_to_the_other_card(nvml):
    nvml.remote = GPU
    (pair,) = pairs([0, 1], nvml)
    assert pair.nvlink_links == 0, "card 1 tells of no link to card 0"
