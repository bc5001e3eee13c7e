import pytest

from benchmarks.indexing import Round, summary

ROUND = Round(
    num_images=100, decode_s=0.01, prepare_s=0.02, embed_s=0.03, loading_s=1.0, build_s=5.0
)


def test_the_share_of_the_limit_is_the_least_time_of_all_cores_over_the_builds_time() -> None:
    shares = ROUND.shares_of_limit(num_cores=2)
    assert shares == {
        "prepare_and_forward": pytest.approx(2.5 / 5),
        "decode_and_forward": pytest.approx(2.0 / 5),
        "prepare_and_forward_once_loaded": pytest.approx(2.5 / 4),
        "decode_and_forward_once_loaded": pytest.approx(2.0 / 4),
    }


def test_the_summary_has_medians_in_milliseconds_and_images_per_second() -> None:
    figures = summary([ROUND], num_cores=2)
    assert (figures["decode_ms"], figures["prepare_ms"], figures["forward_ms"]) == (10, 20, 30)
    assert figures["images_per_s"] == 20
    assert figures["share_by_round"] == [[0.5, 0.4, 0.625, 0.5]]
