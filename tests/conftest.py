"""Settings of TensorFlow that must be made before it is imported."""

import os

# As trialrun's own workers do: quiet, and one thread per program, so that slices share the cores.
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ.setdefault("XLA_FLAGS", "--xla_cpu_multi_thread_eigen=false")
