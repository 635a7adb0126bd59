"""Every exit code of the command `trialrun`; 0 is success."""

EXIT_FAILED = 1  # some trials failed, a tracker could not be written, or the doctor found a problem
EXIT_WRONG_INPUT = 2  # the user's input is wrong, and nothing was trained
EXIT_INTERRUPTED = 75  # EX_TEMPFAIL: on this code, SLURM wrappers requeue the job
EXIT_CTRL_C = 130
