-- +goose Up

CREATE TABLE IF NOT EXISTS router (
  -- Routers and what they have applied.
  router_id TEXT NOT NULL, -- id of the router
  version   TEXT NOT NULL, -- its version
  last_seen TEXT NOT NULL, -- when it was last heard, UTC
  applied   TEXT NOT NULL, -- list of {pool, epoch, revision}
  PRIMARY KEY (router_id),
  CONSTRAINT router_id_ends_well CHECK (router_id NOT LIKE '% ')
) STRICT;
