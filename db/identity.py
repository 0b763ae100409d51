"""Ids are any signed number, for clients may choose them; and they come back (a restore, TRUNCATE): of which row of an id a
record beside an attachment is, as expressions of SQL.
"""

LOWEST_ID, HIGHEST_ID = -(2**63), 2**63 - 1
# Where walks over all rows begin, up and down: beside what a column can hold.
BELOW_ALL, ABOVE_ALL = LOWEST_ID - 1, HIGHEST_ID + 1

# Of a row `a` of message_attachments, to the second, whatever the column's precision.
OF_ROW = "CONCAT_WS(' ', a.message_id, a.uploaded_by_id, LEFT(a.created_at, 19))"
# Whether the record `s` is of another row; one from before the column was there is any row's.
IS_ANOTHERS = f"s.of_row NOT IN ('', {OF_ROW})"
