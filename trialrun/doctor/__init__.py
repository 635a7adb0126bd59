"""`trialrun doctor`: what works on this machine and on a cluster's nodes, and what to do.

`examine` tells the story. Each check is a small function that gives a `Check`; it looks, and
changes nothing that stays. TensorFlow and Ray are only met in processes of their own, or in
`cluster`.
"""
