-- +goose Up

CREATE TABLE IF NOT EXISTS leader (
  -- The one row says which coordinator leads. Taking over is an UPDATE that
  -- names the epoch and renewal seen before.
  id        INTEGER NOT NULL, -- always 1
  store_id  TEXT NOT NULL,    -- identifies this database; another one means another history; set by the first leader
  holder    TEXT NOT NULL,    -- id of the coordinator that leads, or empty before the first
  advertise TEXT NOT NULL,    -- address at which agents and routers reach it
  epoch     INTEGER NOT NULL, -- counts leaders
  renewal   INTEGER NOT NULL, -- counts signs of life and fenced writes; standbys watch whether it moves
  since     TEXT,             -- when this epoch began, by the clock of its leader, UTC; for people only
  PRIMARY KEY (id),
  CONSTRAINT leader_is_one CHECK (id = 1)
) STRICT;
