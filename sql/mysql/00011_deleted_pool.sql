-- +goose Up
-- +goose NO TRANSACTION

CREATE TABLE IF NOT EXISTS deleted_pool (
  name           VARCHAR(63) NOT NULL     COMMENT 'name of the pool',
  epoch          BIGINT UNSIGNED NOT NULL COMMENT 'epoch of the leader that has deleted it',
  revision       BIGINT UNSIGNED NOT NULL COMMENT 'its last revision, that of the deletion',
  last_change_id VARCHAR(128) NOT NULL    COMMENT 'id of the change that has deleted it',
  deleted_at     DATETIME(6) NOT NULL     COMMENT 'when, by the clock of the coordinator, UTC',
  actor          VARCHAR(2048) NOT NULL   COMMENT 'who asked for it',
  reason         VARCHAR(1024) NOT NULL   COMMENT 'why',
  request_id     VARCHAR(128) NOT NULL    COMMENT 'id of the client request, or empty',
  hash           VARCHAR(128) NOT NULL    COMMENT 'hash of its content',
  PRIMARY KEY (name)
) ENGINE = InnoDB DEFAULT CHARACTER SET utf8mb4 COLLATE utf8mb4_bin
  COMMENT 'Pools that were deleted: what keeps the revisions of a new pool of that name above those of the old one, and answers who asks again.';
