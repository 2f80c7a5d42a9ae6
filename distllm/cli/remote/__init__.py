"""The commands that `--server URL` has done by a service on another machine."""
