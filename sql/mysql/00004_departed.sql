-- +goose Up
-- +goose NO TRANSACTION

CREATE TABLE IF NOT EXISTS departed (
  pool         VARCHAR(63) NOT NULL     COMMENT 'pool',
  server_id    VARCHAR(253) NOT NULL    COMMENT 'id of the server',
  incarnation  BIGINT UNSIGNED NOT NULL COMMENT 'incarnation that was removed',
  cause        VARCHAR(16) NOT NULL     COMMENT 'crashed, unreachable, lossy, shutdown or operator',
  boot_id      VARCHAR(128) NOT NULL    COMMENT 'boot of the host then',
  left_at      DATETIME(6) NOT NULL     COMMENT 'when it was removed, UTC',
  flap_score   DOUBLE NOT NULL          COMMENT 'removals counted with a half-life, as of left_at',
  hold_down_ms BIGINT UNSIGNED NOT NULL COMMENT 'how long a return is held, in milliseconds',
  PRIMARY KEY (pool, server_id),
  CONSTRAINT departed_id_ends_well CHECK (server_id NOT LIKE '% ')
) ENGINE = InnoDB DEFAULT CHARACTER SET utf8mb4 COLLATE utf8mb4_bin
  COMMENT 'What is remembered of servers that were removed by verdict.';
