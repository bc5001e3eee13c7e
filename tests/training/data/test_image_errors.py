"""The errors of images have a reason for programs and one line for people."""

from training.data.image_errors import damaged_header, too_costly


def test_the_errors_name_the_reason_and_what_to_do() -> None:
    assert damaged_header().reason == "truncated"
    assert "use a complete copy" in str(damaged_header())
    error = too_costly("the image has 1,000 scans")
    assert error.reason == "too-costly"
    assert str(error).startswith("the image has 1,000 scans; save the image again")
