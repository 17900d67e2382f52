-- +goose Up
-- +goose NO TRANSACTION

CREATE TABLE IF NOT EXISTS event (
  pool        VARCHAR(63) NOT NULL     COMMENT 'pool',
  revision    BIGINT UNSIGNED NOT NULL COMMENT 'change it belongs to',
  seq         INT UNSIGNED NOT NULL    COMMENT 'place among the events of that change, from 0',
  epoch       BIGINT UNSIGNED NOT NULL COMMENT 'epoch of the leader',
  at          DATETIME(6) NOT NULL     COMMENT 'when, by the clock of the coordinator, UTC',
  kind        VARCHAR(32) NOT NULL     COMMENT 'joined, activated, removed, not_removed, ...',
  server_id   VARCHAR(253) NOT NULL    COMMENT 'server it is about, or empty for the pool',
  incarnation BIGINT UNSIGNED NOT NULL COMMENT 'incarnation of that server, or 0',
  cause       VARCHAR(16) NOT NULL     COMMENT 'why it left, or empty',
  actor       VARCHAR(2048) NOT NULL   COMMENT 'who asked for it',
  text        TEXT NOT NULL            COMMENT 'one plain sentence',
  explanation JSON NULL                COMMENT 'who saw what and when, which rule fired, which rows changed',
  PRIMARY KEY (pool, revision, seq),
  KEY event_by_server (pool, server_id, revision, seq)
) ENGINE = InnoDB DEFAULT CHARACTER SET utf8mb4 COLLATE utf8mb4_bin
  COMMENT 'History of the pools, with the evidence behind every decision. Read it ORDER BY revision, seq.';
