-- +goose Up

CREATE TABLE IF NOT EXISTS deleted_pool (
  -- Pools that were deleted: what keeps the revisions of a new pool of that name
  -- above those of the old one, and answers who asks again.
  name           TEXT NOT NULL,    -- name of the pool
  epoch          INTEGER NOT NULL, -- epoch of the leader that has deleted it
  revision       INTEGER NOT NULL, -- its last revision, that of the deletion
  last_change_id TEXT NOT NULL,    -- id of the change that has deleted it
  deleted_at     TEXT NOT NULL,    -- when, by the clock of the coordinator, UTC
  actor          TEXT NOT NULL,    -- who asked for it
  reason         TEXT NOT NULL,    -- why
  request_id     TEXT NOT NULL,    -- id of the client request, or empty
  hash           TEXT NOT NULL,    -- hash of its content
  PRIMARY KEY (name)
) STRICT;
