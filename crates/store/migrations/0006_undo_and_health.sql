-- Changes that are undone together: those of one step, in a row. A change that belongs to none is a step of its own.
ALTER TABLE classifier_changes ADD COLUMN undo_step INTEGER NOT NULL DEFAULT 0;
ALTER TABLE classifier_changes ADD COLUMN undo_group TEXT;
UPDATE classifier_changes SET undo_step = revision;

-- Written now and then to see whether the database can be written.
CREATE TABLE health_probe (
    id      INTEGER PRIMARY KEY CHECK (id = 1),
    made_ms INTEGER NOT NULL
) STRICT;
