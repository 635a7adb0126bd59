"""`trialrun doctor`: what works on this machine and on a cluster's nodes, and what to do.

Start reading at `examine.diagnose`. Each check is a small function that returns a `Check` and
leaves nothing changed. TensorFlow and Ray are used only in processes of their own, or in `cluster`.
"""
