"""Papers and questions into a job: files are read once, and prompts refer to what was read.

Every step is kept as it is done, so that a submit that was killed is gone on with, not begun again.
"""

from distllm.intake.building import HANDS, Created, OnStep, Weights, Window, build, create
from distllm.intake.planning import Plan, plan
from distllm.intake.request import Request

__all__ = ["HANDS", "Created", "OnStep", "Plan", "Request", "Weights", "Window", "build", "create", "plan"]
