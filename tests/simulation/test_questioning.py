from kapelle.testing.questioning import Questioning
from kapelle.testing.simulation import simulate


def test_questions_are_answered_once_and_by_people_whatever_happens() -> None:
    simulate(Questioning, worlds=10)
