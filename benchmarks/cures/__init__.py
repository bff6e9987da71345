"""The cures on the tasks of the literature: one command an experiment, JSON and a picture each."""
