"""The doctor: one question a dependency, answered by `ok` or by what is wrong and how to mend it.

`questions` is the table of them, `report` asks them beside each other; the other modules each answer for one dependency.
"""
