"""nbgrader makes an assignment of a lesson and grades it: all points, none, and some. All lessons: `python tests/grading.py`."""

import grading
import pytest


@pytest.mark.filterwarnings("ignore")  # nbgrader's own
def test_a_lesson_is_graded():
    lesson = grading.HERE.parent / "notebooks/source/01_corruption.py"
    points = grading.graded(lesson, short=True)
    most = points["solved"][1]
    assert most == 9  # two easy exercises, two of medium difficulty, and a hard one
    assert {student: got for student, (got, _) in points.items()} == {
        "solved": most,
        "two_mistakes": most - 2,
        "untouched": 0,
    }
