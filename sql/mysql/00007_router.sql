-- +goose Up
-- +goose NO TRANSACTION

CREATE TABLE IF NOT EXISTS router (
  router_id VARCHAR(253) NOT NULL COMMENT 'id of the router',
  version   VARCHAR(128) NOT NULL COMMENT 'its version',
  last_seen DATETIME(6) NOT NULL  COMMENT 'when it was last heard, UTC',
  applied   JSON NOT NULL         COMMENT 'list of {pool, epoch, revision}',
  PRIMARY KEY (router_id),
  CONSTRAINT router_id_ends_well CHECK (router_id NOT LIKE '% ')
) ENGINE = InnoDB DEFAULT CHARACTER SET utf8mb4 COLLATE utf8mb4_bin
  COMMENT 'Routers and what they have applied.';
