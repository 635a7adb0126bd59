"""The values that pass between the rooms: variants, trials and packs, and what comes back of them.

`plan` makes the trials of a job, `identity` their ids, `signature` says which of them can share a
program, `packing` puts them into packs, and `needs` says what a pack asks for. Refuses to start
anything, and to import TensorFlow.
"""
