-- How long jobs have worked, and a mark on the inversions whose images did not come out.

-- Milliseconds of all runs of a job together; those of the run that goes on are added now and then.
ALTER TABLE jobs ADD COLUMN worked_ms INTEGER NOT NULL DEFAULT 0 CHECK (worked_ms >= 0);
-- Up to when the run that goes on is counted in worked_ms; NULL while none does.
ALTER TABLE jobs ADD COLUMN counted_ms INTEGER;

-- All that is known of earlier jobs is their last run.
UPDATE jobs SET worked_ms = max(0, finished_ms - started_ms) WHERE finished_ms IS NOT NULL AND started_ms IS NOT NULL;

-- As the program of this schema marks such a result. Real pictures in place of synthetic ones need no mark.
UPDATE jobs SET result = json_set(result, '$.failure', json_object(
    'code', 'inversion_failed',
    'message', printf('the inversion of %s failed: the adapter recognises %.1f %% of its images, and must recognise at least 90 %%',
        result ->> 'adapter', CAST(1000 * (result ->> 'teacher_accuracy') AS INTEGER) / 10.0),
    'hint', 'make the images again with more steps'))
    WHERE kind = 'invert' AND state = 'succeeded' AND result ->> 'teacher_accuracy' < 0.9 AND recipe ->> '$.recipe.real' IS NULL;
