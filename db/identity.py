"""Ids come back (a restore, TRUNCATE): of which row of an id a record beside an attachment is, as expressions of SQL."""

# Of a row `a` of message_attachments, to the second, whatever the column's precision.
OF_ROW = "CONCAT_WS(' ', a.message_id, a.uploaded_by_id, LEFT(a.created_at, 19))"
# Whether the record `s` is of another row; one from before the column was there is any row's.
IS_ANOTHERS = f"s.of_row NOT IN ('', {OF_ROW})"
