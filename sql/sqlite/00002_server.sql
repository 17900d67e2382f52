-- +goose Up

CREATE TABLE IF NOT EXISTS server (
  -- The server table: who is in a pool and who watches whom. Row A says: A
  -- watches first_buddy and second_buddy, and they watch A. Following
  -- first_buddy goes once round the ring. A server that is down has no row.
  pool            TEXT NOT NULL,    -- pool the server is in
  server_id       TEXT NOT NULL,    -- id of the server, unique in its pool
  first_buddy     TEXT,             -- next server on the ring; NULL in a pool of one
  second_buddy    TEXT,             -- previous server on the ring; equal to first_buddy in a pool of two
  phase           TEXT NOT NULL,    -- joining, active, service_down, draining or held
  incarnation     INTEGER NOT NULL, -- revision of the join; a removed incarnation never comes back
  probe_addresses TEXT NOT NULL,    -- what buddies ping: at most one address per family, separated by commas
  probe           TEXT NOT NULL,    -- how buddies ping: icmp or tcp://:PORT
  endpoints       TEXT NOT NULL,    -- where clients reach the service: list of {name, address, protocol}
  zone            TEXT NOT NULL,    -- zone of the host, or empty
  rack            TEXT NOT NULL,    -- failure domain in the zone, or empty for one of its own
  weight          INTEGER NOT NULL, -- share of new work; 100 is usual, 0 is none
  labels          TEXT NOT NULL,    -- labels as an object
  boot_id         TEXT NOT NULL,    -- boot of the host that joined
  instance_id     TEXT NOT NULL,    -- run of the agent that joined
  identity        TEXT NOT NULL,    -- URI of the certificate by which it joined, or empty without TLS
  joined_at       TEXT NOT NULL,    -- when this incarnation joined, UTC
  phase_since     TEXT NOT NULL,    -- when it entered its phase, UTC
  held_until      TEXT,             -- when phase held ends, UTC; NULL otherwise
  PRIMARY KEY (pool, server_id),
  CONSTRAINT server_id_ends_well CHECK (server_id NOT LIKE '% ')
) STRICT;
