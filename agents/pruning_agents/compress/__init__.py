"""From a network to a smaller file: the stages in between, their times, and the page at the end.

A stage is a command line of `cnnprune` and the file that says that it is done, so that a call that
was killed goes on with the first stage that has no such file. Runs no command itself: it is given
what runs one. Begin with `stages.py`; `estimate.py` measures how long they take, `report.py` makes
the page of the files that they leave.
"""
