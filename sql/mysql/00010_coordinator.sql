-- +goose Up
-- +goose NO TRANSACTION

CREATE TABLE IF NOT EXISTS coordinator (
  coordinator_id VARCHAR(253) NOT NULL COMMENT 'id of the coordinator',
  instance       VARCHAR(64) NOT NULL  COMMENT 'the run of the program that took the lead last under this id, or empty; tells two of one id apart',
  advertise      VARCHAR(512) NOT NULL COMMENT 'address at which agents and routers reach it, or empty',
  last_seen      DATETIME(6) NOT NULL  COMMENT 'when it was last there, by its own clock, UTC',
  PRIMARY KEY (coordinator_id)
) ENGINE = InnoDB DEFAULT CHARACTER SET utf8mb4 COLLATE utf8mb4_bin
  COMMENT 'Coordinators on this database. Agents are told the addresses of those seen lately.';
