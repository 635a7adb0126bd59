"""Settings of TensorFlow that must be made before it is imported, and what tests may not leave."""

import os
import sys

import pytest

# As trialrun's own workers do: quiet, and one thread per program, so that slices share the cores.
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ.setdefault("XLA_FLAGS", "--xla_cpu_multi_thread_eigen=false")


@pytest.fixture(autouse=True)
def own_import_path(monkeypatch):
    """A job's folder that a test puts on the import path is gone for the next test."""
    monkeypatch.setattr(sys, "path", list(sys.path))
