"""What synthetic data is worth and how near it comes to people, measured on declared codes.

Start at :func:`fedgen.audit.evaluate.evaluate`. Nothing is imported here, so naming the package is free.
"""
