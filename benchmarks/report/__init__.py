"""Results as one page of HTML that needs nothing else.

Begin with `page.py`.
"""
