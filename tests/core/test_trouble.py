"""What errors say, wherever they are heard."""

from datetime import UTC, datetime, timedelta

import pytest

from kapelle.core.conversation import OUTAGE, Trouble
from kapelle.core.trouble import FURTHEST, believable, reset_in, told_by_gateway, trouble_of_status, trouble_of_text

NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)


@pytest.mark.parametrize("status", [429, 500, 502, 503, 504, 529, 599])
def test_what_passes_by_itself_is_waited_for(status: int) -> None:
    assert trouble_of_status(status) in OUTAGE


@pytest.mark.parametrize("status", [400, 404, 422])
def test_what_comes_back_the_same_is_not(status: int) -> None:
    assert trouble_of_status(status) is Trouble.INVALID_REQUEST


@pytest.mark.parametrize(
    ("text", "moment"),
    [
        ("Claude AI usage limit reached|1772370000", datetime(2026, 3, 1, 13, tzinfo=UTC)),
        ("It resets at 2026-03-01T13:00Z.", datetime(2026, 3, 1, 13, tzinfo=UTC)),
        ("It resets at 2026-03-01T13:00:00+01:00.", NOON),
        ("It resets at 2026-13-41T25:00:00Z.", None),
        ("resets 3pm", None),
        ("resets at 2026-03-01", None),
        ("", None),
    ],
)
def test_only_a_time_that_leaves_no_doubt_is_taken(text: str, moment: datetime | None) -> None:
    assert reset_in(text) == moment


def test_a_time_in_the_past_or_too_far_off_is_not_believed() -> None:
    assert believable(NOON, NOON) is None
    assert believable(None, NOON) is None
    assert believable(NOON + FURTHEST, NOON) == NOON + FURTHEST
    assert believable(NOON + FURTHEST + timedelta(seconds=1), NOON) is None


def test_the_gateways_own_words_are_known_again() -> None:
    said = "API Error: Server is temporarily limiting requests (not your usage limit) · kapelle limit: until then"
    assert told_by_gateway(said)
    assert trouble_of_text(said) is Trouble.USAGE_LIMIT
    assert not told_by_gateway("usage limit reached")
    assert trouble_of_text("all is well") is None
