-- A lease names the opening of the data folder in which it was given.

-- A random UUID for each opening with exclusive access. The lock on the folder ends with its opening, so a lease of another opening
-- than the present one has run out, whatever its time says. NULL: not running, or given before this column was there.
ALTER TABLE jobs ADD COLUMN lease_opening TEXT CHECK (length(lease_opening) = 36);
