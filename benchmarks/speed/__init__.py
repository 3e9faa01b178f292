"""What a step costs, against the least it could cost, other libraries, and its own growth.

Begin with `questions.py`.
"""
