"""What a job says in Keras's words: names, arguments, terms, and the logs that follow from them.

`losses` and `optimizers` check fields of `training`; `names` and `arguments` list what Keras knows.
All of it is known without Keras. Refuses to import it, so that a wrong name is told at once.
"""
