"""How good is a model? One file for each way to find out, registered in EVALUATIONS, and the measures they share."""

from minidiff.evaluation.report import EVALUATIONS, Evaluation, fitting, load
from minidiff.registry import discover

__all__ = ["EVALUATIONS", "Evaluation", "fitting", "load"]

discover(__name__)
