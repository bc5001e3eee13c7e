from benchmarks.index_growth import summary


def test_growth_is_the_ratio_of_the_medians_of_the_largest_and_the_smallest_index() -> None:
    seconds = {
        1000: {"add": [1.0, 2.0, 9.0], "first_answer": [0.1, 0.1, 0.2]},
        100_000: {"add": [2.0, 2.5, 3.0], "first_answer": [0.4, 0.5, 5.0]},
    }
    figures = summary(seconds, num_runs=3)
    assert figures["times_of_largest_to_smallest"] == {"add": 1.25, "first_answer": 5}
    assert figures["goals"] == {"add at most 1.5 times": True, "first answer within 1.0 s": True}


def test_a_goal_that_is_missed_is_false() -> None:
    seconds = {
        1000: {"add": [1.0], "first_answer": [0.1]},
        100_000: {"add": [2.0], "first_answer": [1.5]},
    }
    goals = summary(seconds, num_runs=1)["goals"]
    assert goals == {"add at most 1.5 times": False, "first answer within 1.0 s": False}
