"""Channel codes lead to a group and a component, by SEED's and K-NET's habits and the user's aliases."""

from __future__ import annotations

import pytest

from s1batch.errors import UsageError
from s1batch.readers.seismic.components import ChannelRole, channel_id, requested_components, role_of, same_rate


@pytest.mark.parametrize(
    ("channel", "group", "component"),
    [
        ("BW.RJOB..EHZ", "BW.RJOB..EH", "Z"),
        ("BW.RJOB..EH1", "BW.RJOB..EH", "N"),
        ("BW.RJOB..EH2", "BW.RJOB..EH", "E"),
        ("BW.RJOB..EH3", "BW.RJOB..EH", "Z"),
        ("BW.RJOB..ehz", "BW.RJOB..EH", "Z"),
        ("BO.AKT013..EW", "BO.AKT013..", "E"),
        ("BO.AKT013..NS", "BO.AKT013..", "N"),
        ("BO.AKT013..UD", "BO.AKT013..", "Z"),
        ("BO.AKTH01..EW1", "BO.AKTH01..1", "E"),
        ("BO.AKTH01..UD2", "BO.AKTH01..2", "Z"),
        ("XX.STA.00.Z", "XX.STA.00.", "Z"),
        ("XX.STA..BDH", "XX.STA..BD", "H"),
        ("XX.STA..B_H_Z", "XX.STA..B_H", "Z"),
    ],
)
def test_a_code_gives_group_and_component(channel: str, group: str, component: str) -> None:
    role = role_of(channel, {})
    assert role is not None
    assert (role.group, role.component) == (group, component)


def test_an_alias_may_be_a_whole_code_or_a_last_letter_or_the_empty_code() -> None:
    assert role_of("..STA.0", {"0": "Z"}) == ChannelRole(group="..STA.", component="Z", family=3)
    assert role_of("X.S..BHU", {"U": "N"}) == ChannelRole(group="X.S..BH", component="N", family=3)
    assert role_of("X.S..BHU", {"BHU": "2"}) == ChannelRole(group="X.S..BH", component="E", family=3)
    assert role_of("X.S..", {"": "z"}) == ChannelRole(group="X.S..", component="Z", family=3)
    assert role_of("X.S..", {}) is None


def test_requested_components_keep_their_order_and_z12_is_zne() -> None:
    assert requested_components("Z12") == ("Z", "N", "E")
    assert requested_components("enz") == ("E", "N", "Z")
    with pytest.raises(UsageError, match="twice"):
        requested_components("ZN1")


def test_a_channel_id_is_text_with_three_dots() -> None:
    assert channel_id("BW", "RJ.OB ", "--", "EHZ") == "BW.RJ_OB..EHZ"
    assert channel_id("", "\udcff", "", "Z").count(".") == 3
    channel_id("", "\udcff", "", "Z").encode()


def test_jitter_is_one_rate_and_a_change_is_two() -> None:
    assert same_rate(100.0, 100.005)
    assert not same_rate(100.0, 100.5)
