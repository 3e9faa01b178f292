"""The command line `cnnprune`: reads arguments, calls the library, prints.

The only room that writes to the standard output. Begin with `main.py`; most commands have a file.
"""
