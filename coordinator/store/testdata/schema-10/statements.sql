-- What a coordinator of this schema says: it must be able to go on on the next
-- one, while others are already of the next program. In the order of a day; a
-- write is followed by how many rows it must touch.

SELECT l.store_id, l.holder, COALESCE(c.instance, ''), l.advertise, l.epoch, l.renewal FROM leader l LEFT JOIN coordinator c ON c.coordinator_id = l.holder WHERE l.id = 1;
SELECT COALESCE(MAX(epoch), 0) FROM pool;
UPDATE leader SET store_id = 'STORE', holder = 'c2', advertise = 'c2.example:7400', epoch = 4, renewal = renewal + 1, since = '2026-11-02 09:00:00.000000' WHERE id = 1 AND epoch = 3 AND renewal = 4711; -- 1
UPDATE pool SET epoch = 4 WHERE epoch < 4; -- 2
INSERT INTO coordinator (coordinator_id, instance, advertise, last_seen) VALUES ('c2', 'run-2', 'c2.example:7400', '2026-11-02 09:00:00.000000'); -- 1
UPDATE coordinator SET advertise = 'c2.example:7400', last_seen = '2026-11-02 09:00:10.000000' WHERE coordinator_id = 'c2'; -- 1
SELECT coordinator_id, advertise, last_seen FROM coordinator WHERE last_seen >= '2026-11-01 00:00:00.000000' ORDER BY coordinator_id;

SELECT name, epoch, revision, last_change_id, reference_size, settings FROM pool ORDER BY name;
SELECT pool, server_id, first_buddy, second_buddy, phase, incarnation, probe_addresses, probe, endpoints, zone, rack, weight, labels, boot_id, instance_id, identity, joined_at, phase_since, held_until FROM server ORDER BY pool, server_id;
SELECT pool, server_id, wish, reason, actor, set_at, expires_at FROM intent ORDER BY pool, server_id;
SELECT pool, server_id, incarnation, cause, boot_id, left_at, flap_score, hold_down_ms FROM departed ORDER BY pool, server_id;
SELECT pool, request_id, hash, revision, at FROM request WHERE at >= '2026-01-01 00:00:00.000000' ORDER BY pool, at, request_id;
SELECT router_id, version, last_seen, applied FROM router ORDER BY router_id;
UPDATE leader SET renewal = renewal + 1 WHERE id = 1 AND epoch = 4; -- 1

UPDATE pool SET revision = revision + 1, last_change_id = '4-1-00000000000000b2' WHERE name = 'web' AND epoch = 4 AND revision = 12; -- 1
UPDATE pool SET settings = '{"mode":"enforce"}' WHERE name = 'web' AND epoch = 4; -- 1
UPDATE pool SET reference_size = 4 WHERE name = 'web' AND epoch = 4; -- 1
DELETE FROM server WHERE pool = 'web' AND ((server_id = 'web-3' AND incarnation = 11)); -- 1
UPDATE server SET first_buddy = 'web-4' WHERE pool = 'web' AND server_id = 'web-2'; -- 1
UPDATE server SET second_buddy = 'web-4' WHERE pool = 'web' AND server_id = 'web-1'; -- 1
INSERT INTO server (pool, server_id, first_buddy, second_buddy, phase, incarnation, probe_addresses, probe, endpoints, zone, rack, weight, labels, boot_id, instance_id, identity, joined_at, phase_since, held_until) VALUES ('web', 'web-4', 'web-1', 'web-2', 'joining', 13, '192.0.2.4', 'icmp', '[]', '', '', 100, '{}', 'boot-4', 'run-4', '', '2026-11-02 09:00:01.000000', '2026-11-02 09:00:01.000000', NULL); -- 1
DELETE FROM intent WHERE pool = 'web' AND server_id IN ('web-2'); -- 1
INSERT INTO intent (pool, server_id, wish, reason, actor, set_at, expires_at) VALUES ('web', 'web-3', 'maintenance', 'why', 'ann', '2026-11-02 09:00:01.000000', NULL); -- 1
INSERT INTO departed (pool, server_id, incarnation, cause, boot_id, left_at, flap_score, hold_down_ms) VALUES ('web', 'web-9', 11, 'crashed', 'boot-3', '2026-11-02 09:00:01.000000', 1, 5000); -- 1
INSERT INTO event (pool, revision, seq, epoch, at, kind, server_id, incarnation, cause, actor, text, explanation) VALUES ('web', 13, 0, 4, '2026-11-02 09:00:01.000000', 'joined', 'web-4', 13, '', 'agent/web-4', 'web-4 joined', NULL); -- 1
DELETE FROM request WHERE pool = 'web' AND request_id = 'disk-1' AND at < '2026-11-02 08:00:00.000000'; -- 1
INSERT INTO request (pool, request_id, hash, revision, at) VALUES ('web', 'disk-1', 'def', 13, '2026-11-02 09:00:01.000000'); -- 1
INSERT INTO pool (name, epoch, revision, last_change_id, compacted_revision, reference_size, settings) VALUES ('new', 4, 1, 'new', 0, 0, '{}'); -- 1
INSERT INTO router (router_id, version, last_seen, applied) VALUES ('edge-2', '0.1', '2026-11-02 09:00:05.000000', '[]'); -- 1
DELETE FROM router WHERE router_id = 'edge-1'; -- 1
DELETE FROM router WHERE last_seen < '2026-11-01 00:00:00.000000'; -- 0

SELECT epoch, revision FROM pool WHERE name = 'web';
SELECT epoch, revision, last_change_id FROM pool WHERE name = 'web';
SELECT compacted_revision FROM pool WHERE name = 'web';
SELECT revision FROM event WHERE pool = 'web' AND revision >= 5 ORDER BY revision, seq LIMIT 1 OFFSET 1;
SELECT pool, revision, seq, epoch, at, kind, server_id, incarnation, cause, actor, text, explanation FROM event WHERE pool = 'web' AND revision >= 5 ORDER BY revision, seq LIMIT 100;
UPDATE pool SET compacted_revision = 11 WHERE name = 'web' AND compacted_revision < 11; -- 1
DELETE FROM event WHERE pool = 'web' AND revision <= 11; -- 1
UPDATE leader SET holder = '', advertise = '', renewal = renewal + 1 WHERE id = 1 AND epoch = 4; -- 1
