from kapelle.adapters.evaluators.process import ProcessEvaluator
from kapelle.core.evaluating import Evaluator
from kapelle.testing.conformance.evaluating import EvaluatorSuite
from kapelle.testing.evaluating import PlainEvaluator


class TestProcessEvaluator(EvaluatorSuite):
    def evaluator(self) -> Evaluator:
        return ProcessEvaluator()


class TestPlainEvaluator(EvaluatorSuite):
    def evaluator(self) -> Evaluator:
        return PlainEvaluator()
