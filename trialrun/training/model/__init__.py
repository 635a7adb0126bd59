"""The model of a trial: built under its seed, compiled, and checked against its job."""
