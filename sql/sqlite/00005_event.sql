-- +goose Up

CREATE TABLE IF NOT EXISTS event (
  -- History of the pools, with the evidence behind every decision. Read it
  -- ORDER BY revision, seq.
  pool        TEXT NOT NULL,    -- pool
  revision    INTEGER NOT NULL, -- change it belongs to
  seq         INTEGER NOT NULL, -- place among the events of that change, from 0
  epoch       INTEGER NOT NULL, -- epoch of the leader
  at          TEXT NOT NULL,    -- when, by the clock of the coordinator, UTC
  kind        TEXT NOT NULL,    -- joined, activated, removed, not_removed, ...
  server_id   TEXT NOT NULL,    -- server it is about, or empty for the pool
  incarnation INTEGER NOT NULL, -- incarnation of that server, or 0
  cause       TEXT NOT NULL,    -- why it left, or empty
  actor       TEXT NOT NULL,    -- who asked for it
  text        TEXT NOT NULL,    -- one plain sentence
  explanation TEXT,             -- who saw what and when, which rule fired, which rows changed
  PRIMARY KEY (pool, revision, seq)
) STRICT;

CREATE INDEX IF NOT EXISTS event_by_server ON event (pool, server_id, revision, seq);
