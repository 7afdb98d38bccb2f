"""Goals that were tried: features of the teachers, and an ensemble of all teachers. TRY_ variables of the environment switch them on."""
import os
from ablations import BASE, IMAGES
from recycled import Full, Program, Table, common_options, evaluate, glyphs, recycle
asked = common_options(__doc__).parse_args()
size, seed = Full, asked.seed
base, validation, test = glyphs(asked.work, size)
program = Program(asked)
names = [f"letters-{i:04}" for i in range(20)]
runs = Table(asked.work / "tries-runs.csv", "seed name")
table = Table(asked.work / "tries.csv", "seed split shot name asked_rank")
TRIES = {"t-features-1": {"TRY_FEATURES": "1"}, "t-features-10-instead": {"TRY_FEATURES": "10", "TRY_INSTEAD": "1"},
         "t-ensemble": {"TRY_ENSEMBLE": "20"}, "t-ensemble-all": {"TRY_ENSEMBLE": "20", "TRY_ENSEMBLE_ALL": "1"}}
for name, more in TRIES.items():
    program.environment = {**os.environ, "LORA_RECYCLE_THREADS": str(asked.threads), **more}
    recycle(program, runs, asked.work, name, names, BASE, IMAGES["hard"], size, seed)
    for split, folder in (("validation", validation), ("test", test)):
        evaluate(program, table, folder, split, size.shots, size, seed, ["base", name])
