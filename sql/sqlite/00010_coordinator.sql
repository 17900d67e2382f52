-- +goose Up

CREATE TABLE IF NOT EXISTS coordinator (
  -- Coordinators on this database. Agents are told the addresses of those seen
  -- lately.
  coordinator_id TEXT NOT NULL, -- id of the coordinator
  instance       TEXT NOT NULL, -- the run of the program that took the lead last under this id, or empty; tells two of one id apart
  advertise      TEXT NOT NULL, -- address at which agents and routers reach it, or empty
  last_seen      TEXT NOT NULL, -- when it was last there, by its own clock, UTC
  PRIMARY KEY (coordinator_id)
) STRICT;
