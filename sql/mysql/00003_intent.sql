-- +goose Up
-- +goose NO TRANSACTION

CREATE TABLE IF NOT EXISTS intent (
  pool       VARCHAR(63) NOT NULL   COMMENT 'pool',
  server_id  VARCHAR(253) NOT NULL  COMMENT 'id; it need not be a member',
  wish       VARCHAR(16) NOT NULL   COMMENT 'active, drain, maintenance or banned',
  reason     VARCHAR(1024) NOT NULL COMMENT 'why',
  actor      VARCHAR(2048) NOT NULL COMMENT 'who asked for it',
  set_at     DATETIME(6) NOT NULL   COMMENT 'when, UTC',
  expires_at DATETIME(6) NULL       COMMENT 'when it ends, UTC; NULL for no end',
  PRIMARY KEY (pool, server_id),
  CONSTRAINT intent_id_ends_well CHECK (server_id NOT LIKE '% ')
) ENGINE = InnoDB DEFAULT CHARACTER SET utf8mb4 COLLATE utf8mb4_bin
  COMMENT 'Wishes of operators for an id, member or not. They survive removal, rejoin, reboot and failover.';
