"""Where files are kept: the port, the two places behind it, their settings, and signed addresses.

Holds not: what files may be (the sender's, which takes them in and gives them out), and their rows (the store's).
"""
