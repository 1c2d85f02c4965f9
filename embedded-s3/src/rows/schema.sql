-- Keys are BLOBs: S3 orders keys by their UTF-8 bytes, and a key may hold any character.
-- Times are milliseconds since 1970. Sizes are bytes.

CREATE TABLE bucket (
    id         INTEGER PRIMARY KEY AUTOINCREMENT,
    name       TEXT    NOT NULL UNIQUE,
    created_ms INTEGER NOT NULL,
    cors       TEXT -- the rules as JSON; NULL: none
) STRICT;

-- One version of an object. Ids are never reused: a reader that sees its id again sees the same bytes.
-- bucket_id is NULL only inside a transaction, between freeing the key and deleting the row.
CREATE TABLE object (
    id          INTEGER PRIMARY KEY AUTOINCREMENT,
    bucket_id   INTEGER REFERENCES bucket (id),
    key         BLOB    NOT NULL,
    size        INTEGER NOT NULL,
    etag        TEXT    NOT NULL,
    modified_ms INTEGER NOT NULL,
    headers     TEXT    NOT NULL, -- content-type and its like, and the user's metadata, as JSON
    checksum    TEXT,             -- algorithm, value and type as JSON; NULL: none was asked for
    UNIQUE (bucket_id, key)
) STRICT;

-- The bytes of an object, in the order (part, n). An empty object has no segment.
CREATE TABLE object_segment (
    object_id INTEGER NOT NULL REFERENCES object (id) ON DELETE CASCADE,
    part      INTEGER NOT NULL,
    n         INTEGER NOT NULL,
    blob      BLOB    NOT NULL,
    start     INTEGER NOT NULL,
    length    INTEGER NOT NULL,
    PRIMARY KEY (object_id, part, n)
) STRICT, WITHOUT ROWID;
CREATE INDEX object_segment_blob ON object_segment (blob);

-- A multipart upload. Once completed it has no parts, and is kept for a day, so that a
-- repeated CompleteMultipartUpload gets its answer again.
CREATE TABLE upload (
    pk           INTEGER PRIMARY KEY AUTOINCREMENT,
    id           TEXT    NOT NULL UNIQUE,
    bucket_id    INTEGER NOT NULL REFERENCES bucket (id),
    key          BLOB    NOT NULL,
    created_ms   INTEGER NOT NULL,
    headers      TEXT    NOT NULL,
    checksum     TEXT, -- algorithm and type as JSON
    completed_ms INTEGER,
    etag         TEXT,
    CHECK ((completed_ms IS NULL) = (etag IS NULL))
) STRICT;
CREATE INDEX upload_open ON upload (bucket_id, key, id) WHERE completed_ms IS NULL;
CREATE INDEX upload_completed ON upload (completed_ms) WHERE completed_ms IS NOT NULL;

-- upload_pk is NULL only inside a transaction, as above.
CREATE TABLE part (
    pk          INTEGER PRIMARY KEY AUTOINCREMENT,
    upload_pk   INTEGER REFERENCES upload (pk),
    number      INTEGER NOT NULL CHECK (number BETWEEN 1 AND 10000),
    size        INTEGER NOT NULL,
    etag        TEXT    NOT NULL,
    modified_ms INTEGER NOT NULL,
    checksum    TEXT,
    UNIQUE (upload_pk, number)
) STRICT;

CREATE TABLE part_segment (
    part_pk INTEGER NOT NULL REFERENCES part (pk) ON DELETE CASCADE,
    n       INTEGER NOT NULL,
    blob    BLOB    NOT NULL,
    start   INTEGER NOT NULL,
    length  INTEGER NOT NULL,
    PRIMARY KEY (part_pk, n)
) STRICT, WITHOUT ROWID;
CREATE INDEX part_segment_blob ON part_segment (blob);

PRAGMA user_version = 1;
