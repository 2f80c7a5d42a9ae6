"""OpenAI's API, for programs written for it: files, batches, models, and single requests.

A batch is a job of distllm. Limits: what the API has beyond chat and completions of one text each (tools, images,
several choices, log probabilities) is refused, and never left out in silence.
"""

from distllm.service.openai.clerk import Clerk
from distllm.service.openai.room import openai_room

__all__ = ["Clerk", "openai_room"]
