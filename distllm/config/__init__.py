"""The configuration: one JSON file, what the environment overrides, and the defaults, read once.

`settings` says what may stand in it and reads it, `edit` changes the workers of a file and nothing else in it.
"""

from distllm.config.settings import Config, WorkerConfig, preset_folders, user_folder

__all__ = ["Config", "WorkerConfig", "preset_folders", "user_folder"]
