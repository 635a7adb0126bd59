"""Writes a run that has ended to TensorBoard and MLflow, where people already look.

Everything is read from the run folder, in the driver's process, without TensorFlow. A tracker that
fails does not harm the run: its error is returned as a `TrackerError` for the user to see.
"""

from trialrun.trackers.write_all import require_packages, show_in_trackers

__all__ = ["require_packages", "show_in_trackers"]
