-- The least that the workers' accounts need. For a database, a drills' schema, accounts or hosts of other names replace
-- truck2_db, truck2\_db\_drill, 'chat_ or '%' in a copy: a _ in the name of a whole schema has a \ before it.
-- As an administrator, before the first `chat-workers db migrate` and again with each release that brings new tables:
--   mysql < deploy/mysql/grants.sql
-- The accounts themselves are made once, with passwords of your own:
--   CREATE USER 'chat_workers'@'%' IDENTIFIED BY '…' REQUIRE SSL;
--   CREATE USER 'chat_backup'@'%' IDENTIFIED BY '…' REQUIRE SSL;
--   CREATE USER 'chat_deploy'@'%' IDENTIFIED BY '…' REQUIRE SSL;
-- CREATE on worker_ tables only lets this file be run before `db migrate` makes them.
-- TRIGGER: without it a dump would leave out the triggers of the chat's tables, without a word.

-- chat_workers: notifications, attachments, housekeeping, events, gateway and beat
GRANT SELECT, UPDATE (delivery_status, is_sent, sent_at, error_message), DELETE ON `truck2_db`.`chat_notifications` TO 'chat_workers'@'%';
GRANT SELECT (id, conversation_id, message_id, is_deleted) ON `truck2_db`.`messages` TO 'chat_workers'@'%';
GRANT SELECT (id, conversation_id, user_id, unread_count, last_read_message_id, is_muted, is_blocked, muted_until, joined_at, left_at, status) ON `truck2_db`.`chat_participants` TO 'chat_workers'@'%';
GRANT SELECT (id, conversation_id, user_id, notifications_enabled, desktop_notifications, mobile_notifications, sound_enabled, notification_type) ON `truck2_db`.`conversation_settings` TO 'chat_workers'@'%';
GRANT SELECT (id, message_id, reader_id, status) ON `truck2_db`.`message_reads` TO 'chat_workers'@'%';
GRANT SELECT (id, message_id, uploaded_by_id, file_size, file_name, file_url, file_type, file_extension, scanned_for_virus, is_safe, created_at), UPDATE (scanned_for_virus, is_safe) ON `truck2_db`.`message_attachments` TO 'chat_workers'@'%';
GRANT SELECT (id, started_at, expires_at), DELETE ON `truck2_db`.`typing_indicators` TO 'chat_workers'@'%';
GRANT SELECT (id, conversation_id, is_active, is_closed, closed_reason, closed_at, last_message_at, created_at, updated_at), UPDATE (is_active, is_closed, closed_at, closed_reason) ON `truck2_db`.`conversations` TO 'chat_workers'@'%';
GRANT SELECT, INSERT, UPDATE, DELETE, CREATE ON `truck2_db`.`worker_audit` TO 'chat_workers'@'%';
GRANT SELECT, INSERT, UPDATE, DELETE, CREATE ON `truck2_db`.`worker_backup_runs` TO 'chat_workers'@'%';
GRANT SELECT, INSERT, UPDATE, DELETE, CREATE ON `truck2_db`.`worker_dead_devices` TO 'chat_workers'@'%';
GRANT SELECT, INSERT, UPDATE, DELETE, CREATE ON `truck2_db`.`worker_deliveries` TO 'chat_workers'@'%';
GRANT SELECT, INSERT, UPDATE, DELETE, CREATE ON `truck2_db`.`worker_delivery_counts` TO 'chat_workers'@'%';
GRANT SELECT, INSERT, UPDATE, DELETE, CREATE ON `truck2_db`.`worker_delivery_history` TO 'chat_workers'@'%';
GRANT SELECT, INSERT, UPDATE, DELETE, CREATE ON `truck2_db`.`worker_events` TO 'chat_workers'@'%';
GRANT SELECT, INSERT, UPDATE, DELETE, CREATE ON `truck2_db`.`worker_heartbeat` TO 'chat_workers'@'%';
GRANT SELECT, INSERT, UPDATE, DELETE, CREATE ON `truck2_db`.`worker_pauses` TO 'chat_workers'@'%';
GRANT SELECT, INSERT, UPDATE, DELETE, CREATE ON `truck2_db`.`worker_providers` TO 'chat_workers'@'%';
GRANT SELECT, INSERT, UPDATE, DELETE, CREATE ON `truck2_db`.`worker_retention_policies` TO 'chat_workers'@'%';
GRANT SELECT, INSERT, UPDATE, DELETE, CREATE ON `truck2_db`.`worker_retention_runs` TO 'chat_workers'@'%';
GRANT SELECT, INSERT, UPDATE, DELETE, CREATE ON `truck2_db`.`worker_scan_events` TO 'chat_workers'@'%';
GRANT SELECT, INSERT, UPDATE, DELETE, CREATE ON `truck2_db`.`worker_scan_releases` TO 'chat_workers'@'%';
GRANT SELECT, INSERT, UPDATE, DELETE, CREATE ON `truck2_db`.`worker_scan_walks` TO 'chat_workers'@'%';
GRANT SELECT, INSERT, UPDATE, DELETE, CREATE ON `truck2_db`.`worker_scans` TO 'chat_workers'@'%';
GRANT SELECT, CREATE ON `truck2_db`.`worker_alembic_version` TO 'chat_workers'@'%';

-- chat_backup: the backups queue: dumps, and drills in a schema of their own
GRANT SELECT, TRIGGER ON `truck2_db`.`conversations` TO 'chat_backup'@'%';
GRANT SELECT, TRIGGER ON `truck2_db`.`messages` TO 'chat_backup'@'%';
GRANT SELECT, TRIGGER ON `truck2_db`.`message_reads` TO 'chat_backup'@'%';
GRANT SELECT, TRIGGER ON `truck2_db`.`message_attachments` TO 'chat_backup'@'%';
GRANT SELECT, TRIGGER ON `truck2_db`.`message_reactions` TO 'chat_backup'@'%';
GRANT SELECT, TRIGGER ON `truck2_db`.`chat_participants` TO 'chat_backup'@'%';
GRANT SELECT, TRIGGER ON `truck2_db`.`typing_indicators` TO 'chat_backup'@'%';
GRANT SELECT, TRIGGER ON `truck2_db`.`conversation_settings` TO 'chat_backup'@'%';
GRANT SELECT, TRIGGER ON `truck2_db`.`chat_notifications` TO 'chat_backup'@'%';
GRANT SELECT, TRIGGER, CREATE ON `truck2_db`.`worker_scans` TO 'chat_backup'@'%';
GRANT SELECT, TRIGGER, CREATE ON `truck2_db`.`worker_scan_releases` TO 'chat_backup'@'%';
GRANT SELECT, INSERT, DELETE, CREATE ON `truck2_db`.`worker_backup_runs` TO 'chat_backup'@'%';
GRANT SELECT, INSERT, UPDATE, CREATE ON `truck2_db`.`worker_audit` TO 'chat_backup'@'%';
GRANT INSERT, CREATE ON `truck2_db`.`worker_events` TO 'chat_backup'@'%';
GRANT ALL PRIVILEGES ON `truck2\_db\_drill`.* TO 'chat_backup'@'%';

-- chat_deploy: chat-workers db migrate
GRANT SELECT, INSERT, UPDATE, DELETE, CREATE, ALTER, DROP, INDEX, REFERENCES ON `truck2_db`.`worker_alembic_version` TO 'chat_deploy'@'%';
GRANT SELECT, INSERT, UPDATE, DELETE, CREATE, ALTER, DROP, INDEX, REFERENCES ON `truck2_db`.`worker_audit` TO 'chat_deploy'@'%';
GRANT SELECT, INSERT, UPDATE, DELETE, CREATE, ALTER, DROP, INDEX, REFERENCES ON `truck2_db`.`worker_backup_runs` TO 'chat_deploy'@'%';
GRANT SELECT, INSERT, UPDATE, DELETE, CREATE, ALTER, DROP, INDEX, REFERENCES ON `truck2_db`.`worker_dead_devices` TO 'chat_deploy'@'%';
GRANT SELECT, INSERT, UPDATE, DELETE, CREATE, ALTER, DROP, INDEX, REFERENCES ON `truck2_db`.`worker_deliveries` TO 'chat_deploy'@'%';
GRANT SELECT, INSERT, UPDATE, DELETE, CREATE, ALTER, DROP, INDEX, REFERENCES ON `truck2_db`.`worker_delivery_counts` TO 'chat_deploy'@'%';
GRANT SELECT, INSERT, UPDATE, DELETE, CREATE, ALTER, DROP, INDEX, REFERENCES ON `truck2_db`.`worker_delivery_history` TO 'chat_deploy'@'%';
GRANT SELECT, INSERT, UPDATE, DELETE, CREATE, ALTER, DROP, INDEX, REFERENCES ON `truck2_db`.`worker_events` TO 'chat_deploy'@'%';
GRANT SELECT, INSERT, UPDATE, DELETE, CREATE, ALTER, DROP, INDEX, REFERENCES ON `truck2_db`.`worker_heartbeat` TO 'chat_deploy'@'%';
GRANT SELECT, INSERT, UPDATE, DELETE, CREATE, ALTER, DROP, INDEX, REFERENCES ON `truck2_db`.`worker_pauses` TO 'chat_deploy'@'%';
GRANT SELECT, INSERT, UPDATE, DELETE, CREATE, ALTER, DROP, INDEX, REFERENCES ON `truck2_db`.`worker_providers` TO 'chat_deploy'@'%';
GRANT SELECT, INSERT, UPDATE, DELETE, CREATE, ALTER, DROP, INDEX, REFERENCES ON `truck2_db`.`worker_retention_policies` TO 'chat_deploy'@'%';
GRANT SELECT, INSERT, UPDATE, DELETE, CREATE, ALTER, DROP, INDEX, REFERENCES ON `truck2_db`.`worker_retention_runs` TO 'chat_deploy'@'%';
GRANT SELECT, INSERT, UPDATE, DELETE, CREATE, ALTER, DROP, INDEX, REFERENCES ON `truck2_db`.`worker_scan_events` TO 'chat_deploy'@'%';
GRANT SELECT, INSERT, UPDATE, DELETE, CREATE, ALTER, DROP, INDEX, REFERENCES ON `truck2_db`.`worker_scan_releases` TO 'chat_deploy'@'%';
GRANT SELECT, INSERT, UPDATE, DELETE, CREATE, ALTER, DROP, INDEX, REFERENCES ON `truck2_db`.`worker_scan_walks` TO 'chat_deploy'@'%';
GRANT SELECT, INSERT, UPDATE, DELETE, CREATE, ALTER, DROP, INDEX, REFERENCES ON `truck2_db`.`worker_scans` TO 'chat_deploy'@'%';
