"""Laws are checked on the same examples in every run: a failure here is a fault, never luck."""

import hypothesis

hypothesis.settings.register_profile("unit", deadline=None, derandomize=True, database=None, max_examples=60)
hypothesis.settings.load_profile("unit")
