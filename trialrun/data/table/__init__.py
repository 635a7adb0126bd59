"""CSV and Parquet files as the data of a trial, from the cells of a file to columns of numbers.

`load` tells the story. Refuses to guess: a cell whose meaning is doubtful is an error that names
its line.
"""
