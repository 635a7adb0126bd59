"""The data of a trial: generated or read, checked, split and scaled.

`load` tells the story; `table` reads CSV and Parquet files. Refuses to import TensorFlow, and to
know what a model does with the data, beyond what its labels are taken for.
"""
