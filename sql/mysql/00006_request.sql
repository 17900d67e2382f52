-- +goose Up
-- +goose NO TRANSACTION

CREATE TABLE IF NOT EXISTS request (
  pool       VARCHAR(63) NOT NULL     COMMENT 'pool',
  request_id VARCHAR(128) NOT NULL    COMMENT 'id that the client chose',
  hash       VARCHAR(128) NOT NULL    COMMENT 'hash of the content of the request',
  revision   BIGINT UNSIGNED NOT NULL COMMENT 'revision at which it took effect',
  at         DATETIME(6) NOT NULL     COMMENT 'when, UTC',
  PRIMARY KEY (pool, request_id),
  KEY request_by_time (pool, at)
) ENGINE = InnoDB DEFAULT CHARACTER SET utf8mb4 COLLATE utf8mb4_bin
  COMMENT 'Answers to the request ids of clients, kept for an hour, so that a repeated request is done once.';
