"""What became of everything: the API's own notes against the database, the providers' log, the storage and the backups."""
