"""Decisions over seeds: who is trained with more of them, who is dropped, who is confirmed.

`schedule` says what rounds a job has, `strategy` decides one round from those before. Both are pure
functions of the job and of validation numbers. Refuses to train, and to see a test number.
"""
