-- +goose Up
-- +goose NO TRANSACTION

CREATE TABLE IF NOT EXISTS leader (
  id        TINYINT UNSIGNED NOT NULL COMMENT 'always 1',
  store_id  VARCHAR(64) NOT NULL      COMMENT 'identifies this database; another one means another history; set by the first leader',
  holder    VARCHAR(253) NOT NULL     COMMENT 'id of the coordinator that leads, or empty before the first',
  advertise VARCHAR(512) NOT NULL     COMMENT 'address at which agents and routers reach it',
  epoch     BIGINT UNSIGNED NOT NULL  COMMENT 'counts leaders',
  renewal   BIGINT UNSIGNED NOT NULL  COMMENT 'counts signs of life and fenced writes; standbys watch whether it moves',
  since     DATETIME(6) NULL          COMMENT 'when this epoch began, by the clock of its leader, UTC; for people only',
  PRIMARY KEY (id),
  CONSTRAINT leader_is_one CHECK (id = 1)
) ENGINE = InnoDB DEFAULT CHARACTER SET utf8mb4 COLLATE utf8mb4_bin
  COMMENT 'The one row says which coordinator leads. Taking over is an UPDATE that names the epoch and renewal seen before.';
