-- +goose Up

-- The one row of leader; the first leader gives the database its identity.
INSERT IGNORE INTO leader (id, store_id, holder, advertise, epoch, renewal) VALUES (1, '', '', '', 0, 0);
