"""The command line `cnnprune`: reads arguments, calls the library, prints.

Nothing else writes to the standard output. Begin with `main.py`; most commands have a file.
"""
