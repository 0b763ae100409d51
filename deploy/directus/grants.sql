-- Prints the least rights Directus needs once its bootstrap or an upgrade has run as the owner of the schema:
--
--     mariadb truck2_db -N -e "CREATE USER directus@'10.0.0.%' IDENTIFIED BY '…'"
--     (echo "SET @account = 'directus@''10.0.0.%''';"; cat grants.sql) | mariadb -N truck2_db | mariadb truck2_db
--
-- It may then change no table's definition, and of the workers' rows only a policy's settings and which devices are dead.
-- Creating fields or collections in the app needs the owner's account: do that in a maintenance, and print the rights anew.
SELECT CONCAT('GRANT ', rights, ' ON `', REPLACE(DATABASE(), '`', '``'), '`.`', REPLACE(table_name, '`', '``'), '` TO ', @account, ';')
FROM (
  SELECT table_name, 'SELECT, INSERT, UPDATE, DELETE' AS rights
  FROM information_schema.tables WHERE table_schema = DATABASE() AND table_name NOT LIKE 'worker\_%'
  UNION ALL
  SELECT table_name, 'SELECT'
  FROM information_schema.tables WHERE table_schema = DATABASE() AND table_name LIKE 'worker\_%'
  UNION ALL
  SELECT 'worker_retention_policies', 'UPDATE (enabled, age, hours, rows_per_run, minutes_per_run, batch_rows, archive)'
  UNION ALL
  SELECT 'worker_dead_devices', 'DELETE'
) AS tables_and_rights;
