"""The documentation site, made by `make docs` from the pages in docs/ and, for its reference, from the code."""
