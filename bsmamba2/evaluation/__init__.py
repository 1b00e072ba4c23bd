"""From songs and their separation to results that can be published."""

from bsmamba2.evaluation.command import Evaluation, TrackScores, evaluate

__all__ = ["Evaluation", "TrackScores", "evaluate"]
