-- +goose Up

CREATE TABLE IF NOT EXISTS pool (
  -- A pool of servers. Every change of a pool raises revision by exactly one,
  -- in an UPDATE that names epoch and revision: that is the fence against a
  -- leader of the past and the only source of revisions.
  name               TEXT NOT NULL,    -- name of the pool
  epoch              INTEGER NOT NULL, -- epoch of the leader that may write
  revision           INTEGER NOT NULL, -- durable changes so far
  last_change_id     TEXT NOT NULL,    -- id of the change that made this revision; tells whether a COMMIT of unknown outcome went through
  compacted_revision INTEGER NOT NULL, -- events up to this revision may be gone; 0 while none are
  reference_size     INTEGER NOT NULL, -- size the pool is meant to have, for the floor rule
  settings           TEXT NOT NULL,    -- settings of the operator; durations in nanoseconds
  PRIMARY KEY (name),
  CONSTRAINT pool_name_ends_well CHECK (name NOT LIKE '% ')
) STRICT;
