-- +goose Up
-- +goose NO TRANSACTION

CREATE TABLE IF NOT EXISTS pool (
  name               VARCHAR(63) NOT NULL     COMMENT 'name of the pool',
  epoch              BIGINT UNSIGNED NOT NULL COMMENT 'epoch of the leader that may write',
  revision           BIGINT UNSIGNED NOT NULL COMMENT 'durable changes so far',
  last_change_id     VARCHAR(128) NOT NULL    COMMENT 'id of the change that made this revision; tells whether a COMMIT of unknown outcome went through',
  compacted_revision BIGINT UNSIGNED NOT NULL COMMENT 'events up to this revision may be gone; 0 while none are',
  reference_size     INT UNSIGNED NOT NULL    COMMENT 'size the pool is meant to have, for the floor rule',
  settings           JSON NOT NULL            COMMENT 'settings of the operator; durations in nanoseconds',
  PRIMARY KEY (name),
  CONSTRAINT pool_name_ends_well CHECK (name NOT LIKE '% ')
) ENGINE = InnoDB DEFAULT CHARACTER SET utf8mb4 COLLATE utf8mb4_bin
  COMMENT 'A pool of servers. Every change of a pool raises revision by exactly one, in an UPDATE that names epoch and revision: that is the fence against a leader of the past and the only source of revisions.';
