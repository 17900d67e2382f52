-- +goose Up
-- +goose NO TRANSACTION

CREATE TABLE IF NOT EXISTS server (
  pool            VARCHAR(63) NOT NULL     COMMENT 'pool the server is in',
  server_id       VARCHAR(253) NOT NULL    COMMENT 'id of the server, unique in its pool',
  first_buddy     VARCHAR(253) NULL        COMMENT 'next server on the ring; NULL in a pool of one',
  second_buddy    VARCHAR(253) NULL        COMMENT 'previous server on the ring; equal to first_buddy in a pool of two',
  phase           VARCHAR(16) NOT NULL     COMMENT 'joining, active, service_down, draining or held',
  incarnation     BIGINT UNSIGNED NOT NULL COMMENT 'revision of the join; a removed incarnation never comes back',
  probe_addresses VARCHAR(128) NOT NULL    COMMENT 'what buddies ping: at most one address per family, separated by commas',
  probe           VARCHAR(32) NOT NULL     COMMENT 'how buddies ping: icmp or tcp://:PORT',
  endpoints       JSON NOT NULL            COMMENT 'where clients reach the service: list of {name, address, protocol}',
  zone            VARCHAR(253) NOT NULL    COMMENT 'zone of the host, or empty',
  rack            VARCHAR(253) NOT NULL    COMMENT 'failure domain in the zone, or empty for one of its own',
  weight          INT UNSIGNED NOT NULL    COMMENT 'share of new work; 100 is usual, 0 is none',
  labels          JSON NOT NULL            COMMENT 'labels as an object',
  boot_id         VARCHAR(128) NOT NULL    COMMENT 'boot of the host that joined',
  instance_id     VARCHAR(128) NOT NULL    COMMENT 'run of the agent that joined',
  identity        VARCHAR(2048) NOT NULL   COMMENT 'URI of the certificate by which it joined, or empty without TLS',
  joined_at       DATETIME(6) NOT NULL     COMMENT 'when this incarnation joined, UTC',
  phase_since     DATETIME(6) NOT NULL     COMMENT 'when it entered its phase, UTC',
  held_until      DATETIME(6) NULL         COMMENT 'when phase held ends, UTC; NULL otherwise',
  PRIMARY KEY (pool, server_id),
  CONSTRAINT server_id_ends_well CHECK (server_id NOT LIKE '% ')
) ENGINE = InnoDB DEFAULT CHARACTER SET utf8mb4 COLLATE utf8mb4_bin
  COMMENT 'The server table: who is in a pool and who watches whom. Row A says: A watches first_buddy and second_buddy, and they watch A. Following first_buddy goes once round the ring. A server that is down has no row.';
