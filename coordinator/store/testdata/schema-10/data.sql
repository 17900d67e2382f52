-- What a coordinator of this schema has left in its database.

INSERT INTO goose_db_version (version_id, is_applied) VALUES (0, 1), (1, 1), (2, 1), (3, 1), (4, 1), (5, 1), (6, 1), (7, 1), (8, 1), (9, 1), (10, 1);

INSERT INTO pool (name, epoch, revision, last_change_id, compacted_revision, reference_size, settings) VALUES
  ('default', 3, 1, 'first', 0, 0, '{"mode":"enforce"}'),
  ('web', 3, 12, '3-7-00000000000000a1', 4, 3, '{"mode":"shadow","hold_down":7000000000}');

INSERT INTO server (pool, server_id, first_buddy, second_buddy, phase, incarnation, probe_addresses, probe, endpoints, zone, rack, weight, labels, boot_id, instance_id, identity, joined_at, phase_since, held_until) VALUES
  ('web', 'web-1', 'web-2', 'web-3', 'active', 2, '192.0.2.1,2001:db8::1', 'icmp', '[{"name":"http","address":"192.0.2.1:80","protocol":"http"}]', 'eu-1', 'r1', 100, '{"os":"linux"}', 'boot-1', 'run-1', 'spiffe://example.org/buddyring/agent/web/web-1', '2026-11-01 10:00:00.000001', '2026-11-01 10:00:01.000000', NULL),
  ('web', 'web-2', 'web-3', 'web-1', 'draining', 4, '192.0.2.2', 'tcp://:22', '[]', 'eu-1', 'r2', 0, '{}', 'boot-2', 'run-2', '', '2026-11-01 10:00:02.000000', '2026-11-01 12:00:00.000000', NULL),
  ('web', 'web-3', 'web-1', 'web-2', 'held', 11, '192.0.2.3', 'icmp', '[]', '', '', 100, '{}', 'boot-3', 'run-3', '', '2026-11-01 10:00:03.000000', '2026-11-01 13:00:00.000000', '2026-11-01 13:00:30.500000');

INSERT INTO intent (pool, server_id, wish, reason, actor, set_at, expires_at) VALUES
  ('web', 'web-2', 'drain', 'new disk', 'ann', '2026-11-01 12:00:00.000000', NULL),
  ('web', 'web-8', 'banned', 'sold', 'bob', '2026-11-01 11:00:00.000000', '2126-11-01 11:00:00.000000');

INSERT INTO departed (pool, server_id, incarnation, cause, boot_id, left_at, flap_score, hold_down_ms) VALUES
  ('web', 'web-3', 6, 'lossy', '', '2026-11-01 12:30:00.000000', 1.5, 30000);

INSERT INTO event (pool, revision, seq, epoch, at, kind, server_id, incarnation, cause, actor, text, explanation) VALUES
  ('web', 11, 0, 3, '2026-11-01 13:00:00.000000', 'joined', 'web-3', 11, '', 'agent/web-3', 'web-3 is back', NULL),
  ('web', 12, 0, 3, '2026-11-01 13:00:01.000000', 'removed', 'web-7', 9, 'crashed', 'coordinator', 'web-7 was removed', '{"server_id":"web-7","incarnation":9,"verdict":"crashed","rule":"observers_agree","text":"","started":"2026-11-01T13:00:00Z","decided":"2026-11-01T13:00:01Z","timeline":null}');

INSERT INTO request (pool, request_id, hash, revision, at) VALUES
  ('web', 'disk-1', 'abc', 8, '2026-11-01 12:00:00.000000');

INSERT INTO router (router_id, version, last_seen, applied) VALUES
  ('edge-1', '0.1', '2026-11-01 13:00:05.000000', '[{"pool":"web","epoch":3,"revision":12}]');

UPDATE leader SET store_id = 'STORE', holder = 'c1', advertise = 'c1.example:7400', epoch = 3, renewal = 4711, since = '2026-11-01 09:00:00.000000' WHERE id = 1;

INSERT INTO coordinator (coordinator_id, instance, advertise, last_seen) VALUES ('c1', 'run', 'c1.example:7400', '2026-11-01 13:00:05.000000');
