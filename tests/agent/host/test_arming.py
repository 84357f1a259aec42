"""The set that arms our tables, and its time-out in nft's words."""

from datetime import timedelta

import pytest

from stanch.agent.host.arming import armed, arming, timeout


@pytest.mark.parametrize(
    ("lasts", "said"),
    [
        (None, ""),
        (timedelta(hours=5), " timeout 0d5h0m0s0ms"),
        (timedelta(hours=9999), " timeout 416d15h0m0s0ms"),
        (timedelta(minutes=1, seconds=2, milliseconds=3), " timeout 0d0h1m2s3ms"),
        (timedelta(0), " timeout 0d0h0m0s1ms"),
        (timedelta(seconds=-5), " timeout 0d0h0m0s1ms"),
    ],
)
def test_a_length_of_time_in_the_words_of_nft(lasts, said):
    """No number has more than eight digits, and what is over lasts a moment, never for ever."""
    assert timeout(lasts) == said


def test_the_one_element_is_the_deadline():
    """It is told apart from the sets of addresses, so that it alone can be replaced."""
    made = armed(timedelta(hours=1))
    assert made.times
    assert made.elements == [arming(timedelta(hours=1))] == ["0x0 timeout 0d1h0m0s0ms"]
